"""Loaders: the order of samples, its division among ranks, and the place to go on from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from lit_transformer.data.batch import PADDING, Batch, LanguageBatch
from lit_transformer.data.packing import PackedBlocks, seeded
from lit_transformer.data.token_file import Ints
from lit_transformer.errors import UserError


@dataclass(frozen=True)
class Share:
    """Which part of each batch a process gets.

    Args:
        rank: This process among those that see different data.
        world_size: Their number.
        accumulate: Number of batches that gradients are accumulated over before an optimizer step.
    """

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1


ALONE = Share()


class SampleOrder:
    """An endless sequence of samples: a permutation of all of them, then another one, ...

    The sample at a place is a pure function of (seed, epoch, index in the epoch), with place = epoch * count + index:
    the number of ranks, workers and the batch size have no part in it.

    Args:
        count: Number of samples in an epoch.
        seed: What the permutations depend on beside the epoch.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._permutation: Ints = np.zeros(0, np.int64)

    def __call__(self, first: int, stop: int) -> Ints:
        """The ids, ``epoch * count + sample``, of the places from ``first`` up to ``stop``."""
        parts = []
        while first < stop:
            epoch, index = divmod(first, self.count)
            if epoch != self._epoch:
                self._epoch, self._permutation = epoch, seeded(self.seed, epoch, 0).permutation(self.count)
            part = self._permutation[index : index + stop - first]
            parts.append(epoch * self.count + part)
            first += len(part)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


class _Batches:
    """A dataset whose items are whole batches, asked for by (ids, window_tokens)."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitem__(self, wanted: tuple[Ints, int | None]) -> Any:
        return self.rows.batch(*wanted)


def _as_it_is(batch: Any) -> Any:
    return batch


def read_ahead(rows: Any, wanted: Iterator[tuple[Ints, int | None]], num_workers: int) -> Any:
    """``rows.batch`` of each pair of ids and window tokens, in worker processes or here."""
    # A generator of its own: a DataLoader without one draws its workers' seed from the global generator, and the run
    # would go on with other numbers after a resume.
    return DataLoader(
        _Batches(rows),  # type: ignore[arg-type]
        batch_size=None,
        sampler=wanted,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


class EndlessLoader:
    """Training samples without end: an epoch of the Trainer goes on where the last one stopped.

    A window is what one optimizer step sees: ``accumulate`` batches on each rank. An epoch of the Trainer is a number
    of whole windows, so the Trainer, which steps at the last batch of an epoch, never steps on part of one.

    The state is the number of samples delivered on all ranks: a run can go on with other ranks, workers or batch size.
    A subclass says what its samples are in ``epoch_windows``, ``identity`` and ``read``.

    Args:
        batch_size: Number of rows on each rank.
        share: The part of this process.
    """

    def __init__(self, batch_size: int, share: Share = ALONE) -> None:
        self.batch_size = batch_size
        self.share = share
        self.samples = 0
        self._epoch_start = 0
        self._goes_on = False
        self.on_new_epoch: Callable[[], None] | None = None
        """Called when a loaded state's epoch cannot go on: with other ranks, another batch size or accumulation."""

    @property
    def global_batch(self) -> int:
        """Number of samples in a batch, on all ranks."""
        return self.batch_size * self.share.world_size

    @property
    def window(self) -> int:
        """Number of samples in an optimizer step, on all ranks."""
        return self.global_batch * self.share.accumulate

    @property
    def epoch_windows(self) -> int:
        """Number of windows in an epoch of the Trainer."""
        raise NotImplementedError

    @property
    def identity(self) -> dict[str, int | str]:
        """What must be the same for the place in the order to mean the same, by the names of the recipe."""
        raise NotImplementedError

    def read(self, first: int, end: int) -> Iterator[Batch]:
        """This rank's batches of the samples from ``first`` up to ``end``; windows begin at ``_epoch_start``."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.epoch_windows * self.share.accumulate

    def __iter__(self) -> Iterator[Batch]:
        end = self._epoch_start + self.epoch_windows * self.window
        if not (self._goes_on and self.samples < end):
            # Here, not after the last yield: the Trainer does not run a loader that has a length to its end.
            self._epoch_start, end = self.samples, self.samples + self.epoch_windows * self.window
        self._goes_on = False
        for batch in self.read(self.samples, end):
            self.samples += self.global_batch
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where to go on: plain values, the same on all ranks."""
        return {
            "samples": self.samples,
            "epoch_start": self._epoch_start,
            "global_batch": self.global_batch,
            "accumulate": self.share.accumulate,
            "identity": self.identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the samples delivered before.

        Raises:
            UserError: The data or their order are others, so that the place means nothing here.
        """
        for key, here in self.identity.items():
            if (there := state["identity"].get(key)) != here:
                raise UserError(
                    f"data.{key}: the checkpoint has {there}, here it is {here}, so its place in the data means "
                    "nothing; keep it, or start from the weights alone with --init_from"
                )
        self.samples = state["samples"]
        self._epoch_start = state["epoch_start"]
        self._goes_on = (state["global_batch"], state["accumulate"]) == (self.global_batch, self.share.accumulate)
        if not self._goes_on and self.on_new_epoch is not None:
            self.on_new_epoch()


class TrainLoader(EndlessLoader):
    """Packed blocks in a random order. An epoch of the Trainer is as many whole windows as one pass over the blocks
    holds, at least one; what is left of a pass opens the next epoch, and windows run across passes.

    Args:
        blocks: The samples.
        batch_size: Number of rows on each rank.
        seed: Decides the order.
        share: The part of this process.
        num_workers: Number of worker processes; 0 reads in this one.
    """

    def __init__(
        self, blocks: PackedBlocks, batch_size: int, seed: int, share: Share = ALONE, num_workers: int = 0
    ) -> None:
        super().__init__(batch_size, share)
        self.blocks = blocks
        self.num_workers = num_workers
        self.order = SampleOrder(len(blocks), seed)

    @property
    def epoch_windows(self) -> int:
        """One pass over the blocks, rounded down."""
        return max(1, len(self.blocks) // self.window)

    @property
    def identity(self) -> dict[str, int | str]:
        """The tokens, how they are cut, and the seed."""
        return {
            "corpus": self.blocks.source.folder.name,
            "block_size": self.blocks.block_size,
            "grid": type(self.blocks.grid).__name__,
            "seed": self.order.seed,
        }

    def read(self, first: int, end: int) -> Iterator[LanguageBatch]:
        """Reads the blocks, in worker processes or here."""
        yield from read_ahead(self.blocks, self._wanted(first, end), self.num_workers)

    def _wanted(self, first: int, end: int) -> Iterator[tuple[Ints, int | None]]:
        start = self._epoch_start + (first - self._epoch_start) // self.window * self.window
        for window_start in range(start, end, self.window):
            ids = self.order(window_start, window_start + self.window)
            tokens = int(self.blocks.target_counts(ids).sum())
            for at in range(0, self.window, self.global_batch):
                if window_start + at >= first:
                    mine = at + self.share.rank * self.batch_size
                    yield ids[mine : mine + self.batch_size], tokens


class EvaluationLoader:
    """Each sample once, in order, dealt out to the ranks; all ranks get equally many rows.

    Where the samples do not come out even, the last row of some ranks is padding: no target, no document, id -1.

    Args:
        blocks: The samples, on a ``FixedGrid``.
        batch_size: Number of rows on each rank.
        share: The part of this process.
        num_workers: Number of worker processes; 0 reads in this one.
    """

    def __init__(self, blocks: PackedBlocks, batch_size: int, share: Share = ALONE, num_workers: int = 0) -> None:
        self.blocks = blocks
        self.batch_size = batch_size
        self.num_workers = num_workers
        rows = -(-len(blocks) // share.world_size)
        ids = np.arange(share.rank, rows * share.world_size, share.world_size, dtype=np.int64)
        self.ids: Ints = np.where(ids < len(blocks), ids, PADDING)

    def __len__(self) -> int:
        return -(-len(self.ids) // self.batch_size)

    def __iter__(self) -> Iterator[LanguageBatch]:
        starts = range(0, len(self.ids), self.batch_size)
        wanted = ((self.ids[start : start + self.batch_size], None) for start in starts)
        yield from read_ahead(self.blocks, wanted, self.num_workers)
