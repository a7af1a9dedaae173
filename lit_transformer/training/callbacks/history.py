"""What a run logged and what it cost, as one file beside its checkpoints."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_transformer.training.memory_report import peak_memory
from lit_transformer.training.run_state import RunState, at_step_boundary, find_callback


class History(Callback):
    """Writes ``history.json`` into the run folder: every logged number by optimizer step, time, memory and tokens.

    On a CPU the seconds that this process computed stand beside those on the wall, which depend on what else runs.

    What was noted travels in the checkpoint, so a run that was killed and resumed writes what it would have written
    without a break, but for seconds and bytes. The clock stands still during validation, generation and saving.

    Args:
        name: Name of the file.
    """

    def __init__(self, name: str = "history.json") -> None:
        self.name = name
        self.curves: dict[str, list[list[float | None]]] = {}
        """Steps and values, by name; a value that is not finite is None."""
        self.seconds = 0.0
        self.processor_seconds = 0.0
        self.memory = 0
        self._since: tuple[float, float] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the clock where it stands still."""
        if self._since is None:
            self._since = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes what was logged in this step, and the time until here."""
        if not at_step_boundary(trainer):
            return
        self._pause()
        step = trainer.global_step
        if step == 1 or step % max(1, int(getattr(trainer, "log_every_n_steps", 50))) == 0:
            self._note(trainer, "train/", step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the results, and the seconds of training that they took."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._note(trainer, "val/", trainer.global_step)
            self._add("cost/seconds", trainer.global_step, self.seconds)
            self._add("cost/processor_seconds", trainer.global_step, self.processor_seconds)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes what there is."""
        self._write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the file."""
        if stage == "fit":
            self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What was noted."""
        return {
            "curves": self.curves,
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "memory": self.memory,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it over."""
        self.curves = state_dict["curves"]
        self.seconds, self.memory = state_dict["seconds"], state_dict["memory"]
        self.processor_seconds = state_dict.get("processor_seconds", 0.0)

    def _pause(self) -> None:
        if self._since is not None:
            wall, processor = self._since
            self.seconds += time.perf_counter() - wall
            self.processor_seconds += time.process_time() - processor
            self._since = None

    def _note(self, trainer: Trainer, prefix: str, step: int) -> None:
        self.memory = max(self.memory, peak_memory(trainer.strategy.root_device))
        for name, value in sorted(trainer.callback_metrics.items()):
            # The rate of tokens is a cost too: it never comes out the same twice.
            if name.startswith(prefix) and name not in ("train/tokens_per_second", "train/mfu"):
                self._add(name, step, float(value))

    def _add(self, name: str, step: int, value: float) -> None:
        points = self.curves.setdefault(name, [])
        if points and points[-1][0] == step:
            points.pop()  # a validation that a signal cut short is done again
        points.append([step, value if math.isfinite(value) else None])

    def _write(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        state = find_callback(trainer, RunState)
        tokens = state.clock.tokens if state is not None else 0
        curves = {name: points for name, points in self.curves.items() if not name.startswith("cost/")}
        cost = {
            "seconds": self.seconds,
            "memory": self.memory,
            "seconds_at": self.curves.get("cost/seconds", []),
            "tokens_per_second": tokens / self.seconds if self.seconds else 0.0,
        }
        if trainer.strategy.root_device.type == "cpu":
            cost["processor_seconds"] = self.processor_seconds
            cost["processor_seconds_at"] = self.curves.get("cost/processor_seconds", [])
        data = {
            "metrics": {name: points[-1][1] for name, points in curves.items()},
            "curves": curves,
            "steps": trainer.global_step,
            "targets": tokens,
            "cost": cost,
        }
        target = Path(trainer.default_root_dir) / self.name
        if not target.parent.is_dir():
            return
        part = target.with_name(f".{target.name}.part")
        part.write_text(json.dumps(data, sort_keys=True), encoding="utf-8")
        os.replace(part, target)
