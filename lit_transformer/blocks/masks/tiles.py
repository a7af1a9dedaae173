"""Which tiles of the score matrix are worth computing, for kernels that skip the others."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool
from torch import Tensor

from lit_transformer.blocks.masks.base import And, Bounds, Mask, Or
from lit_transformer.blocks.masks.sites import Sites, Span


@dataclass(frozen=True)
class Tiles:
    """What a mask says of each tile of ``rows`` queries x ``columns`` keys (the last ones may be smaller).

    Args:
        rows: Queries of a tile.
        columns: Keys of a tile.
        some: Whether any pair may be visible; a tile without can be skipped. Careful: True where it is not sure.
        every: Whether all pairs are visible, so that the tile needs no mask. Careful: False where it is not sure.
    """

    rows: int
    columns: int
    some: Bool[Tensor, "B NT NS"]
    every: Bool[Tensor, "B NT NS"]

    @property
    def density(self) -> float:
        """Share of the tiles that is computed."""
        return float(self.some.float().mean())


def tiles(mask: Mask, q: Sites, k: Sites, rows: int, columns: int) -> Tiles:
    """The tiles of (B or 1, T) queries and (B or 1, S) keys.

    Intervals answer where every part of the mask knows how; a part that does not is evaluated pair by pair.
    """
    some, every = _bounds(mask, q, k, rows, columns)
    return Tiles(rows, columns, some, every)


@lru_cache(maxsize=256)
def plain_tiles(mask: Mask, q_start: int, q_len: int, k_len: int, rows: int, columns: int) -> Tiles:
    """The tiles of rows without documents and prefix: they depend on the mask's value and the lengths alone."""
    q = torch.arange(q_start, q_start + q_len, device="cpu").unsqueeze(0)
    k = torch.arange(k_len, device="cpu").unsqueeze(0)
    return tiles(mask, Sites(q), Sites(k), rows, columns)


def _bounds(mask: Mask, q: Sites, k: Sites, rows: int, columns: int) -> Bounds:
    if type(mask) in (And, Or):
        parts = [_bounds(part, q, k, rows, columns) for part in mask.masks]  # type: ignore[attr-defined]
        join = torch.logical_and if type(mask) is And else torch.logical_or
        some, every = parts[0]
        for other_some, other_every in parts[1:]:
            some, every = join(some, other_some), join(every, other_every)
        return some, every
    q_span = Span.of(q, rows, lambda field: field.unsqueeze(-1))
    k_span = Span.of(k, columns, lambda field: field.unsqueeze(-2))
    bounds = mask.bounds(q_span, k_span)
    return pairwise(mask, q, k, rows, columns) if bounds is None else bounds


def pairwise(mask: Mask, q: Sites, k: Sites, rows: int, columns: int) -> Bounds:
    """The exact answer, from every pair, one row of tiles at a time: the reference of the quick one."""
    k_len = k.index.shape[-1]
    missing = -k_len % columns
    some: list[Tensor] = []
    every: list[Tensor] = []
    for start in range(0, q.index.shape[-1], rows):
        part = q.map(lambda field, start=start: field[..., start : start + rows])  # type: ignore[misc]
        allowed = mask.allowed(part.queries(), k.keys())
        for found, filler in ((some, False), (every, True)):
            padded = torch.nn.functional.pad(allowed, (0, missing), value=filler)
            padded = padded.reshape(*allowed.shape[:-1], -1, columns)
            found.append(padded.all(-1).all(-2) if filler else padded.any(-1).any(-2))
    return torch.stack(some, dim=-2), torch.stack(every, dim=-2)
