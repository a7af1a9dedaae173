"""How much context helps: the loss by position."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lit_transformer.analysis.curve import curve_picture
from lit_transformer.data.batch import IGNORED, LanguageBatch


class PositionLoss(Callback):
    """Draws the loss against the number of tokens before the one that is predicted, at every validation, into
    TensorBoard (``val/loss_by_position``). Language modelling brings it along.

    A curve that is flat towards its end says that a longer context would not help; one that rises, that the network
    does not get along with late positions.

    Args:
        batches: Batches of the validation that are looked at: each is computed once more.
        per_octave: Points for each doubling of the position.
    """

    def __init__(self, batches: int = 8, per_octave: int = 4) -> None:
        self.batches = batches
        self.per_octave = per_octave
        self.latest: list[tuple[float, float]] = []
        """(position, counted from 1; nats per token) of the last validation."""
        self._sums: Tensor | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts anew."""
        self._sums = None

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Adds the losses of the first batches."""
        if batch_idx >= self.batches or not isinstance(batch, LanguageBatch) or not self._draws(trainer):
            return
        length = batch.targets.shape[1]
        if self._sums is None:
            self._sums = torch.zeros(2, 0, dtype=torch.float64, device=batch.targets.device)
        if length > self._sums.shape[1]:
            self._sums = F.pad(self._sums, (0, length - self._sums.shape[1]))
        for row in range(len(batch)):  # a row at a time: all logits of a batch may be more than there is room for
            here = {name: None if value is None else value[row : row + 1] for name, value in batch.inputs.items()}
            output = pl_module.network(**here)  # type: ignore[operator]
            keep = batch.targets[row] != IGNORED
            nll = F.cross_entropy(output.logits[0][keep].float(), batch.targets[row][keep], reduction="none")
            places = batch.positions[row][keep]
            values = torch.stack([nll, torch.ones_like(nll)]).to(self._sums.dtype)
            self._sums.index_add_(1, places, values)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws on the first rank."""
        if not self._draws(trainer):
            return
        sums = self._sums
        if trainer.world_size > 1:
            sums = _over_ranks(sums, pl_module.device)
        if sums is None or trainer.sanity_checking:
            return
        self.latest = self._points(sums)
        if trainer.is_global_zero and self.latest:
            picture = curve_picture("loss (nats per token) by position in the context", self.latest)
            for logger in trainer.loggers:
                add = getattr(getattr(logger, "experiment", None), "add_image", None)
                if add is not None:
                    add("val/loss_by_position", picture, trainer.global_step)

    def _draws(self, trainer: Trainer) -> bool:
        # By the logger's class, which all ranks have alike: they have to agree whether sums are exchanged.
        shown = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        return shown and trainer.state.fn == "fit" and not trainer.sanity_checking

    def _points(self, sums: Tensor) -> list[tuple[float, float]]:
        losses, counts = sums.cpu()
        points, first = [], 1
        while first <= len(counts):
            stop = max(first + 1, math.ceil(first * 2 ** (1 / self.per_octave)))
            count = float(counts[first - 1 : stop - 1].sum())
            if count:
                points.append((math.sqrt(first * (stop - 1)), float(losses[first - 1 : stop - 1].sum()) / count))
            first = stop
        return points


def _over_ranks(sums: Tensor | None, device: torch.device) -> Tensor:
    """The sums of all ranks, which may have seen rows of other lengths, or none."""
    length = torch.tensor(0 if sums is None else sums.shape[1], device=device)
    torch.distributed.all_reduce(length, op=torch.distributed.ReduceOp.MAX)
    mine = torch.zeros(2, int(length), dtype=torch.float64, device=device)
    if sums is not None:
        mine[:, : sums.shape[1]] = sums
    torch.distributed.all_reduce(mine)
    return mine
