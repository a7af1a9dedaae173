"""The same samples in another arrangement: cut into smaller batches, unpacked, of uneven lengths, without chance.

What a mean over tokens must not notice. ``lit-transformer equiv`` adds these callbacks to a recipe.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lit_transformer.data.batch import IGNORED, PADDING, LanguageBatch
from lit_transformer.data.bucketing import BucketedLoader
from lit_transformer.data.loaders import TrainLoader
from lit_transformer.data.packing import seeded
from lit_transformer.data.token_file import Ints
from lit_transformer.errors import UserError


class NoChance(Callback):
    """Turns off dropout of every kind, so that what is drawn cannot make runs differ."""

    RATES = ("dropout", "token_dropout")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets every rate to zero."""
        for module in pl_module.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            for name in self.RATES:
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)


class Rearrangement(Callback):
    """Base: changes the loader of the training data."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the loader is made."""
        data: Any = getattr(trainer, "datamodule", None)
        if data is None or stage != "fit":
            return
        made: Callable[[], Any] = data.train_dataloader
        data.train_dataloader = lambda: self.rearranged(made())

    def rearranged(self, loader: Any) -> Any:
        """The loader, changed or replaced."""
        raise NotImplementedError


class Rows:
    """Base: the rows of a loader, with other batches made of them.

    Args:
        rows: The rows.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getattr__(self, name: str) -> Any:
        if name == "rows":  # not there yet: while a copy is made
            raise AttributeError(name)
        return getattr(self.rows, name)


class UnevenTargets(Rearrangement):
    """Packed blocks are all of one length: predicts, in each, only a number of places that depends on its id."""

    def rearranged(self, loader: Any) -> Any:
        """See the base class; rows of unlike lengths are uneven as they are."""
        if isinstance(loader, TrainLoader):
            loader.blocks = UnevenRows(loader.blocks)  # type: ignore[assignment]
        return loader


class UnevenRows(Rows):
    """Rows whose targets end early, each somewhere else."""

    def target_counts(self, ids: Ints) -> Ints:
        """(B,) number of targets in each sample."""
        counts: Ints = (self.batch(ids).targets != IGNORED).sum(-1).numpy()
        return counts

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """The samples as a batch."""
        batch: LanguageBatch = self.rows.batch(ids, window_tokens)
        length = batch.targets.shape[1]
        stops = torch.tensor([0 if i == PADDING else 1 + int(seeded(int(i), 7).randint(length)) for i in ids])
        batch.targets[torch.arange(length) >= stops.unsqueeze(-1)] = IGNORED
        return batch


class CutBatches(Rearrangement):
    """Every batch in two parts, a quarter and the rest, for another micro-batch or another rank."""

    def rearranged(self, loader: Any) -> Any:
        """See the base class.

        Raises:
            UserError: The loader is of another kind.
        """
        if not isinstance(loader, BucketedLoader):
            raise UserError(f"data: batches of {type(loader).__name__} cannot be cut")
        return CutLoader(loader.rows, loader.budget, loader.seed, loader.share, loader.num_workers)


class CutLoader(BucketedLoader):
    """Batches of the base class in two parts each, one behind the other; a single row is joined by one of padding.

    Each rank reads a part, whoever the budget is of.
    """

    @property
    def global_batch(self) -> int:
        """See the base class."""
        return self.share.world_size

    def own(self, batches: list[Ints]) -> Ints:
        """See the base class."""
        return batches[self.share.rank]

    def plan(self, number: int) -> list[Ints]:
        """See the base class."""
        parts: list[Ints] = []
        for batch in super().plan(number):
            at = max(1, len(batch) // 4)
            rest = batch[at:]
            parts += [batch[:at], rest if len(rest) else np.array([PADDING], dtype=np.int64)]
        return parts

    def ids(self, batch: int) -> Ints:
        """See the base class; padding has no epoch."""
        found = super().ids(batch)
        number = next(known for known in reversed(self._passes) if known[1] <= batch)[0]
        return np.where(found == number * len(self.rows) + PADDING, PADDING, found)


class UnpackedDocuments(Rearrangement):
    """A row for every document of a packed row, with nothing beside it but padding."""

    def __init__(self) -> None:
        self.unpacked: UnpackedRows | None = None

    def rearranged(self, loader: Any) -> Any:
        """See the base class.

        Raises:
            UserError: The data are not packed.
        """
        if not isinstance(loader, TrainLoader):
            raise UserError("data: every row holds one text, nothing is packed")
        loader.num_workers = 0  # what is counted has to be counted here
        loader.blocks = self.unpacked = UnpackedRows(loader.blocks)  # type: ignore[assignment]
        return loader

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses to call it a proof if there was nothing to unpack.

        Raises:
            UserError: No row held several documents.
        """
        if self.unpacked is None or not self.unpacked.several:
            raise UserError("data: no row held several documents in these steps; shorter documents or more --steps")


class UnpackedRows(Rows):
    """Packed rows, taken apart."""

    several = 0
    """How many rows held several documents."""

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """The samples as a batch of more rows."""
        batch: LanguageBatch = self.rows.batch(ids, window_tokens)
        if batch.documents is None:
            return batch
        pieces = [
            (row, torch.nonzero(documents == document).squeeze(-1))
            for row, documents in enumerate(batch.documents)
            for document in documents.unique().tolist()
            if document != PADDING
        ]
        self.several += len(pieces) > len(batch)
        width = max((len(places) for _, places in pieces), default=1)
        width += width % 2  # tensor-parallel ranks share a row
        blank = {"targets": IGNORED, "documents": PADDING}
        taken: dict[str, Tensor] = {"ids": batch.ids[[row for row, _ in pieces]]}
        for name in (each.name for each in fields(batch)):
            value = getattr(batch, name)
            if isinstance(value, Tensor) and value.shape == batch.tokens.shape:
                taken[name] = value.new_full((len(pieces), width), blank.get(name, 0))
                for i, (row, places) in enumerate(pieces):
                    taken[name][i, : len(places)] = value[row, places]
        taken["documents"].clamp_(max=0)
        return replace(batch, **taken)
