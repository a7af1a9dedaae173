"""Packing: documents, laid end to end, cut into blocks of one length."""

from functools import lru_cache

import numpy as np
import torch

from lit_transformer.data.batch import IGNORED, PADDING, LanguageBatch
from lit_transformer.data.token_file import Ints, TokenFile
from lit_transformer.errors import UserError


def seeded(*numbers: int) -> np.random.RandomState:
    """A generator that is a pure function of numbers; of NumPy's, the one whose stream is frozen for good."""
    return np.random.RandomState([number % 2**32 for number in numbers])


@lru_cache
def _offset(seed: int, epoch: int, targets: int) -> int:
    return int(seeded(seed, epoch, 1).randint(targets))


class BlockGrid:
    """Where blocks are cut. The targets of a split form one ring; a block is a stretch of it.

    Args:
        seed: What the cuts may depend on beside the epoch.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def count(self, targets: int, block_size: int) -> int:
        """Number of blocks in an epoch."""
        raise NotImplementedError

    def starts(self, epochs: Ints, numbers: Ints, targets: int, block_size: int) -> Ints:
        """The target at which each block starts, in its epoch."""
        raise NotImplementedError

    def lengths(self, numbers: Ints, targets: int, block_size: int) -> Ints:
        """Number of targets in each block; the rest of it is padding."""
        raise NotImplementedError

    def context(self, numbers: Ints, targets: int, block_size: int) -> Ints:
        """Number of targets at the start of each block that are read as context and not predicted."""
        return np.zeros_like(numbers)


class EvaluationGrid(BlockGrid):
    """Base of the grids that predict every target exactly once."""


class FixedGrid(EvaluationGrid):
    """The same blocks in each epoch, every target exactly once; the last block is padded. Non-overlapping evaluation:
    the first tokens of a block have little context.
    """

    def count(self, targets: int, block_size: int) -> int:
        """As many as it takes to hold all targets."""
        return -(-targets // block_size)

    def starts(self, epochs: Ints, numbers: Ints, targets: int, block_size: int) -> Ints:
        """Multiples of the block size."""
        return numbers * block_size

    def lengths(self, numbers: Ints, targets: int, block_size: int) -> Ints:
        """The block size, less in the last one."""
        return np.minimum(targets - numbers * block_size, block_size)


class StridedGrid(EvaluationGrid):
    """Overlapping blocks, of which only the last ``stride`` targets count: every target, save those of the first block,
    is predicted from at least ``block_size - stride`` tokens. Evaluation takes ``block_size / stride`` times as long.

    Args:
        stride: Number of new targets in a block; left out: half a block.
    """

    def __init__(self, stride: int | None = None) -> None:
        super().__init__()
        if stride is not None and stride < 1:
            raise UserError(f"data.evaluation_grid.stride: is {stride}, must be at least 1")
        self.stride = stride

    def step(self, block_size: int) -> int:
        """Number of new targets in a block.

        Raises:
            UserError: The stride is longer than a block.
        """
        stride = max(1, block_size // 2) if self.stride is None else self.stride
        if stride > block_size:
            raise UserError(f"data.evaluation_grid.stride: is {stride}, must be at most data.block_size {block_size}")
        return stride

    def count(self, targets: int, block_size: int) -> int:
        """As many as it takes to predict all targets."""
        return 1 + max(0, -(-(targets - block_size) // self.step(block_size)))

    def starts(self, epochs: Ints, numbers: Ints, targets: int, block_size: int) -> Ints:
        """Multiples of the stride."""
        return numbers * self.step(block_size)

    def lengths(self, numbers: Ints, targets: int, block_size: int) -> Ints:
        """The block size, less in the last one."""
        return np.minimum(targets - numbers * self.step(block_size), block_size)

    def context(self, numbers: Ints, targets: int, block_size: int) -> Ints:
        """What the block before has predicted."""
        return np.where(numbers == 0, 0, block_size - self.step(block_size))


class ShiftedGrid(BlockGrid):
    """A grid that starts at a random target in each epoch, so that texts are not cut at the same places every time.

    All blocks are full; the targets left over (fewer than a block) are others in each epoch.
    """

    def count(self, targets: int, block_size: int) -> int:
        """As many full blocks as there are; at least one."""
        return max(1, targets // block_size)

    def starts(self, epochs: Ints, numbers: Ints, targets: int, block_size: int) -> Ints:
        """Multiples of the block size from where the epoch starts, around the ring."""
        offsets = np.array([_offset(self.seed, epoch, targets) for epoch in epochs.tolist()], dtype=np.int64)
        return (offsets + numbers * block_size) % targets

    def lengths(self, numbers: Ints, targets: int, block_size: int) -> Ints:
        """The block size."""
        return np.full(len(numbers), min(targets, block_size), dtype=np.int64)


class PackedBlocks:
    """The blocks of a split. A sample id is ``epoch * len(blocks) + number``; the pair says what the sample is.

    A target is what follows a token in its document: nothing is predicted across the end of a document, and only its
    end (where the tokenizer has an eos) is predicted at its last token.

    Args:
        source: The tokens of the split.
        block_size: Number T of positions in a block.
        grid: Where blocks are cut.
        filler: The token written on padding.
    """

    ahead = 1
    """How many tokens behind what is read at a place its target stands."""

    def __init__(self, source: TokenFile, block_size: int, grid: BlockGrid, filler: int = 0) -> None:
        self.source = source
        self.block_size = block_size
        self.grid = grid
        self.filler = filler
        targets = np.maximum(np.diff(source.starts) - self.ahead, 0)
        self.target_starts: Ints = np.concatenate([[0], np.cumsum(targets)])[:-1]
        self.shifts: Ints = source.starts[:-1] - self.target_starts
        self.targets = int(targets.sum())

    def __len__(self) -> int:
        return self.grid.count(self.targets, self.block_size)

    def lengths(self, ids: Ints) -> Ints:
        """(B,) number of tokens in each sample, without reading one; 0 for padding rows (id -1)."""
        counts = self.grid.lengths(ids % len(self), self.targets, self.block_size)
        return np.where(ids == PADDING, 0, counts)

    def target_counts(self, ids: Ints) -> Ints:
        """(B,) number of targets in each sample; 0 for padding rows (id -1)."""
        context = self.grid.context(ids % len(self), self.targets, self.block_size)
        return np.asarray(np.maximum(self.lengths(ids) - context, 0))

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """The samples as a batch; ``window_tokens`` is left out for the number of targets in the batch itself."""
        epochs, numbers = np.divmod(ids, len(self))
        starts = self.grid.starts(epochs, numbers, self.targets, self.block_size)
        starts = np.where(ids == PADDING, 0, starts)
        lengths = self.lengths(ids)
        within = np.arange(self.block_size, dtype=np.int64)
        places = starts[:, None] + within
        first, last = self._document(starts), self._document(np.minimum(places[:, -1], self.targets - 1))
        documents = None
        if (lengths == self.block_size).all() and (places[:, -1] < self.targets).all() and (first == last).all():
            reads = places + self.shifts[first][:, None]
            tokens, targets = self._read(reads)
            positions = np.broadcast_to(within, tokens.shape).copy()
        else:
            tokens, targets, positions, documents = self._mixed(places % self.targets, within, lengths)
        targets[within < self.grid.context(numbers, self.targets, self.block_size)[:, None]] = IGNORED
        count = int((targets != IGNORED).sum()) if window_tokens is None else window_tokens
        return LanguageBatch(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            positions=torch.from_numpy(positions),
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(count),
            documents=None if documents is None else torch.from_numpy(documents),
        )

    def _read(self, places: Ints) -> tuple[Ints, Ints]:
        """The tokens at these places, and their targets."""
        tokens = self.source.tokens
        return tokens[places].astype(np.int64), tokens[places + self.ahead].astype(np.int64)

    def _document(self, places: Ints) -> Ints:
        return np.searchsorted(self.target_starts, places, side="right") - 1

    def _mixed(self, places: Ints, within: Ints, lengths: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Rows of several documents, of the end and the start of the ring, or with padding at their end."""
        owners = self._document(places)
        reads = places + self.shifts[owners]
        begins = np.zeros(places.shape, dtype=bool)
        begins[:, 1:] = (owners[:, 1:] != owners[:, :-1]) | (places[:, 1:] < places[:, :-1])
        documents = np.cumsum(begins, axis=1, dtype=np.int64)
        positions = within - np.maximum.accumulate(np.where(begins, within, 0), axis=1)
        tokens, targets = self._read(reads)
        padding = within >= lengths[:, None]
        tokens[padding], targets[padding] = self.filler, IGNORED
        positions[padding], documents[padding] = 0, PADDING
        return tokens, targets, positions, documents
