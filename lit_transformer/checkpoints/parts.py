"""What a checkpoint holds, and the rule that all of it is of one step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_transformer.checkpoints.footer import Footer
from lit_transformer.errors import UserError

RUN_STATE = "run_state"
EMA = "ema"


def steps_of(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Optimizer steps that each part of a checkpoint says it was taken at, by the part's name."""
    steps = {"weights": checkpoint.get("global_step")}
    for part in (RUN_STATE, EMA):
        state = checkpoint.get(part)
        if isinstance(state, Mapping):
            steps[part] = state.get("step")
    try:
        optimizer = checkpoint["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        steps["loops"] = optimizer["step"]["total"]["completed"]
    except (KeyError, TypeError):
        pass  # a checkpoint of weights alone has no loops
    return {name: step for name, step in steps.items() if isinstance(step, int)}


def check_parts(path: str | Path, checkpoint: Any, footer: Footer) -> None:
    """Refuses a checkpoint whose parts are missing or come from different steps.

    Raises:
        UserError: Naming the parts and their steps.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path}: holds no 'state_dict': it is not a checkpoint of a training run")
    steps = {"file": footer.step, **steps_of(checkpoint)}
    if len(set(steps.values())) > 1:
        said = ", ".join(f"{name} {step}" for name, step in steps.items())
        raise UserError(f"{path}: its parts are of different steps ({said}): it was put together by hand; use another")
    run_state = checkpoint.get(RUN_STATE)
    stored = run_state.get("schedules") if isinstance(run_state, Mapping) else None
    if stored is not None and stored != schedules_of(checkpoint):
        raise UserError(
            f"{path}: its parts are of different steps (schedule {schedules_of(checkpoint)}, run state {stored}): "
            "it was put together by hand; use another"
        )


def schedules_of(checkpoint: Mapping[str, Any]) -> list[Any]:
    """Where each learning-rate schedule stands."""
    schedules = checkpoint.get("lr_schedulers")
    if not isinstance(schedules, list):
        return []
    return [state.get("last_epoch") if isinstance(state, Mapping) else None for state in schedules]
