"""Where tokens stand: what a mask may know of a query and of a key."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sites:
    """Where tokens stand, as far as a mask may know. Every field broadcasts with the others.

    Args:
        index: Place in the row, counted from 0 (with a cache: from its first token). Not the position that an
            encoding sees: the two differ once positions restart, are randomised or are scaled.
        document: Number of the document that the token belongs to; -1 is padding. None: one document, no padding.
        prefix: True where the token belongs to the part of its row that everybody may see (prefix-LM).
        start: Index at which the token's document starts. None: 0.
    """

    index: Tensor
    document: Tensor | None = None
    prefix: Tensor | None = None
    start: Tensor | None = None

    @property
    def place(self) -> Tensor:
        """Place in the token's own document, from 0: what "the first n tokens" of packed or left-padded rows means."""
        return self.index if self.start is None else self.index - self.start

    def map(self, change: Callable[[Tensor], Tensor]) -> "Sites":
        """These sites with every field changed in the same way."""
        values = (getattr(self, field.name) for field in fields(self))
        return Sites(*(None if value is None else change(value) for value in values))  # type: ignore[arg-type]

    def queries(self) -> "Sites":
        """The same sites as rows: (B, T) becomes (B, T, 1)."""
        return self.map(lambda field: field.unsqueeze(-1))

    def keys(self) -> "Sites":
        """The same sites as columns: (B, S) becomes (B, 1, S)."""
        return self.map(lambda field: field.unsqueeze(-2))

    def with_start(self) -> "Sites":
        """These (B, S) sites with ``start`` read off the documents, counted from 0; padding may lie within one."""
        if self.document is None or self.start is not None:
            return self
        batch, length = self.document.shape
        slot = torch.where(self.document < 0, length + 1, self.document.clamp(max=length))
        index = self.index.expand(batch, -1)
        first = index.new_full((batch, length + 2), length).scatter_reduce(1, slot, index, "amin")
        return Sites(self.index, self.document, self.prefix, first.gather(1, slot))


@dataclass(frozen=True)
class Interval:
    """Smallest and largest value of a field within each tile; of a boolean: whether all and whether any are True."""

    low: Tensor
    high: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Interval":
        """Both ends changed in the same way."""
        return Interval(change(self.low), change(self.high))


@dataclass(frozen=True)
class Span:
    """What is known of the sites of each tile: intervals instead of values."""

    index: Interval
    place: Interval
    document: Interval | None = None
    prefix: Interval | None = None

    @classmethod
    def of(cls, sites: Sites, size: int, change: Callable[[Tensor], Tensor]) -> "Span":
        """Intervals of each run of ``size`` sites; ``change`` brings queries or keys into place to broadcast."""

        def interval(field: Tensor) -> Interval:
            missing = -field.shape[-1] % size
            filled = torch.cat((field, field[..., -1:].expand(*field.shape[:-1], missing)), dim=-1)
            tiles = filled.reshape(*field.shape[:-1], -1, size)
            return Interval(tiles.amin(-1), tiles.amax(-1)).map(change)

        document = None if sites.document is None else interval(sites.document)
        prefix = None if sites.prefix is None else interval(sites.prefix)
        return cls(interval(sites.index), interval(sites.place), document, prefix)
