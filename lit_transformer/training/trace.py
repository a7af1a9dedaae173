"""A record of what a run did, batch by batch, exact to the bit."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Trace(Callback):
    """Writes a JSON line per micro-batch: its number, the step, the loss (hexadecimal), the sample ids, the rates.

    Two runs did the same exactly when their lines are the same. A resumed run appends.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._rates: list[str] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes the learning rates that this batch is trained with."""
        self._rates = [float(group["lr"]).hex() for group in trainer.optimizers[0].param_groups]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the line; it is in the file before the next batch begins."""
        if not trainer.is_global_zero:
            return
        ids = getattr(batch, "ids", None)
        line = {
            "batch": trainer.fit_loop.epoch_loop.total_batch_idx,
            "step": trainer.global_step,
            "loss": float(outputs["loss"]).hex(),
            "ids": [] if ids is None else ids.tolist(),
            "rates": self._rates,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @staticmethod
    def read(path: str | Path) -> dict[int, dict[str, Any]]:
        """The lines by batch; of a batch that was done again after a resume, the last."""
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return {line["batch"]: line for line in map(json.loads, lines)}
