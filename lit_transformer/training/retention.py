"""Keeping more than the last and the best checkpoint."""

import re
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer

from lit_transformer.checkpoints.folders import keep, remove
from lit_transformer.errors import UserError
from lit_transformer.training.checkpointing import Checkpointing


class KeptCheckpoints(Checkpointing):
    """Keeps the checkpoints of several validations beside ``last.ckpt`` and ``best.ckpt``, as ``step-00000400.ckpt``:
    what ``lit-transformer checkpoint average`` averages.

    A kept file shares its bytes with ``last.ckpt`` until that is replaced, where the file system has hard links; a kept
    folder of parts is a link to it.

    Args:
        dirpath: Folder of the files; left out: ``checkpoints`` in the run folder.
        every_n_steps: Optimizer steps between two saves of ``last.ckpt``.
        monitor: Logged number that decides what is best.
        mode: Whether less or more is better.
        last: Checkpoints of this many last validations are kept.
        best: Checkpoints of this many best validations are kept.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        every_n_steps: int = 500,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        last: int = 5,
        best: int = 0,
    ) -> None:
        super().__init__(dirpath, every_n_steps, monitor, mode)
        for name, value in (("last", last), ("best", best)):
            if value < 0:
                raise UserError(f"KeptCheckpoints.{name}: is {value}, must be at least 0")
        self.last = last
        self.best = best
        self.scores: dict[int, float] = {}
        """What each validation gave, by step."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the latest state and the best, and keeps what is to be kept."""
        score = trainer.callback_metrics.get(self.monitor)
        if trainer.state.fn == "fit" and not trainer.sanity_checking and score is not None:
            self.scores[trainer.global_step] = float(score)  # before the save, so that the file knows its own
        super().on_validation_end(trainer, pl_module)
        training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if training and trainer.is_global_zero and self._saved_step == trainer.global_step:
            self._keep()

    def _keep(self) -> None:
        keep(self.last_path, self.last_path.with_name(f"step-{self._saved_step:08d}.ckpt"))
        found = {int(match[1]): path for path in self.last_path.parent.glob("step-*.ckpt")
                 if (match := re.fullmatch(r"step-(\d+)\.ckpt", path.name))}  # fmt: skip
        steps = sorted(found)
        ranked = sorted((s for s in steps if s in self.scores), key=self.scores.__getitem__, reverse=self.mode == "max")
        wanted = {*steps[len(steps) - self.last :], *ranked[: self.best]} if self.last else set(ranked[: self.best])
        for step in found.keys() - wanted:
            remove(found[step])

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and what each validation gave."""
        return {**super().state_dict(), "scores": dict(self.scores), "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes both over."""
        super().load_state_dict(state_dict)
        self.scores = {int(step): float(score) for step, score in state_dict.get("scores", {}).items()}
