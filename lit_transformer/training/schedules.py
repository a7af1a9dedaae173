"""The learning rate as a pure function of the optimizer step."""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_transformer.dims import SizeError


class Schedule:
    """Base of the schedules: ``schedule(step)`` is the factor on the optimizer's own learning rate.

    Args:
        total_steps: Optimizer steps of the whole run; ``trainer.max_steps`` fills it in.
        warmup: Steps over which the factor rises from 0 to 1 in a straight line.
    """

    def __init__(self, total_steps: int, warmup: int = 0) -> None:
        if warmup < 0 or warmup > total_steps:
            raise SizeError("schedule.warmup", f"is {warmup}, must be between 0 and trainer.max_steps {total_steps}")
        self.total_steps = total_steps
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """The factor for the update after ``step`` updates."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        return self.after_warmup(step)

    def after_warmup(self, step: int) -> float:
        """The factor once warm-up is over."""
        raise NotImplementedError


ScheduleFactory = Callable[[int], Schedule]


class Constant(Schedule):
    """The same rate after warm-up."""

    def after_warmup(self, step: int) -> float:
        """See the class."""
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1 down to ``final`` (Loshchilov & Hutter, 2017, arXiv:1608.03983; GPT-3).

    Args:
        total_steps: Optimizer steps of the whole run; ``trainer.max_steps`` fills it in.
        warmup: Steps of linear rise before it.
        final: The factor at the end.
    """

    def __init__(self, total_steps: int, warmup: int = 0, final: float = 0.1) -> None:
        super().__init__(total_steps, warmup)
        self.final = final

    def after_warmup(self, step: int) -> float:
        """See the class."""
        progress = min(1.0, (step - self.warmup) / max(1, self.total_steps - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class InverseSqrt(Schedule):
    """Falls with the square root of the step, 1 at the end of warm-up (Noam: Vaswani et al., 2017)."""

    def after_warmup(self, step: int) -> float:
        """See the class."""
        return math.sqrt(max(1, self.warmup) / max(1, step + 1, self.warmup))


class WarmupStableDecay(Schedule):
    """Flat, then a straight line down to ``final`` over the last part (Hu et al., 2024, arXiv:2404.06395).

    Args:
        total_steps: Optimizer steps of the whole run; ``trainer.max_steps`` fills it in.
        warmup: Steps of linear rise before it.
        decay: Share of the run that the descent takes.
        final: The factor at the end.
    """

    def __init__(self, total_steps: int, warmup: int = 0, decay: float = 0.2, final: float = 0.0) -> None:
        super().__init__(total_steps, warmup)
        if not 0 <= decay <= 1:
            raise SizeError("schedule.decay", f"is {decay}, must be a share between 0 and 1")
        self.decay = decay
        self.final = final

    def after_warmup(self, step: int) -> float:
        """See the class."""
        start = self.total_steps * (1 - self.decay)
        if step < start:
            return 1.0
        return 1 - (1 - self.final) * min(1.0, (step - start) / max(1.0, self.total_steps - start))


class ScheduledRate(LRScheduler):
    """Sets each group's rate to its own times the schedule; remembers the step and nothing else.

    So after a resume the recipe's rate and schedule hold, not those that the checkpoint was made with.

    Args:
        optimizer: Its groups' rates are the base.
        schedule: The factor by step.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule) -> None:
        self.schedule = schedule
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Rates for the coming update."""
        return [float(base) * self.schedule(self.last_epoch) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The step."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes to the step and sets the rates that this recipe gives there."""
        self.last_epoch = int(state_dict["last_epoch"])
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
