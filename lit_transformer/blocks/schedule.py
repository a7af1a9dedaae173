"""The order in which a blocked kernel works: pieces of the score matrix that a mask leaves something of."""

from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lit_transformer.blocks.context import Visibility
from lit_transformer.blocks.masks import Mask, Sites


@dataclass(frozen=True)
class Piece:
    """A block of queries with all the keys that any of them sees, so that a softmax is complete within it.

    Args:
        batch: The rows of the batch that it belongs to.
        queries: Which queries.
        keys: Runs of neighbouring keys; what lies between is skipped. None at all: these queries see nothing.
        hidden: (b or 1, t, s): True where a query may not look, for keys ``offset ... offset + s`` counted along the
            runs; the other keys are all visible. None: all are.
        offset: See ``hidden``.
        blind: (b or 1, t): True for queries that see nothing. None: there is none.
    """

    batch: slice
    queries: slice
    keys: tuple[slice, ...]
    hidden: Tensor | None = None
    offset: int = 0
    blind: Tensor | None = None


Schedule = tuple[Piece, ...]

_schedules: WeakKeyDictionary[Visibility, dict[tuple[int, int, int], Schedule]] = WeakKeyDictionary()


def schedule(visible: Visibility, batch: int, together: int, block: int) -> Schedule:
    """The pieces of ``block`` queries and keys for ``together`` rows of the batch at a time.

    Without documents and prefix it depends on the mask's value and the lengths alone and is remembered; otherwise it is
    made once per forward pass and shared by the layers.
    """
    q, k = visible.q, visible.k
    if k.document is None and k.prefix is None:
        t, s = q.index.shape[-1], k.index.shape[-1]
        return _plain(visible.mask, s - t, t, s, batch, together, block)
    known = _schedules.setdefault(visible, {})
    key = (batch, together, block)
    if key not in known:
        known[key] = _build(visible, batch, together, block)
    return known[key]


@lru_cache(maxsize=64)
def _plain(mask: Mask, start: int, t: int, s: int, batch: int, together: int, block: int) -> Schedule:
    q = torch.arange(start, start + t, device="cpu").unsqueeze(0)
    k = torch.arange(s, device="cpu").unsqueeze(0)
    return _build(Visibility(mask, Sites(q), Sites(k)), batch, together, block)


@torch.no_grad()
def _build(visible: Visibility, batch: int, together: int, block: int) -> Schedule:
    tiles = visible.tiles(block, block)
    t, s = visible.q.index.shape[-1], visible.k.index.shape[-1]
    pieces: list[Piece] = []
    known: dict[int, Schedule] = {}
    for start in range(0, batch, together):
        rows = slice(start, min(start + together, batch))
        own = rows if tiles.some.shape[0] > 1 else slice(0, 1)
        if own.start not in known or own is rows:
            some = tiles.some[own].any(0).tolist()
            every = tiles.every[own].all(0).tolist()
            q, k = (_rows(sites, own) for sites in (visible.q, visible.k))
            known[own.start] = tuple(
                _piece(visible.mask, q, k, slice(i * block, min(i * block + block, t)), some[i], every[i], block, s)
                for i in range(len(some))
            )
        pieces += [Piece(rows, p.queries, p.keys, p.hidden, p.offset, p.blind) for p in known[own.start]]
    return tuple(pieces)


def _rows(sites: Sites, rows: slice) -> Sites:
    return sites.map(lambda field: field if field.shape[0] == 1 else field[rows])


def _piece(
    mask: Mask, q: Sites, k: Sites, queries: slice, some: list[bool], every: list[bool], block: int, s: int
) -> Piece:
    tiles = [j for j, any_visible in enumerate(some) if any_visible]
    partial = [at for at, j in enumerate(tiles) if not every[j]]
    runs: list[slice] = []
    for j in tiles:
        begin, end = j * block, min(j * block + block, s)
        if runs and runs[-1].stop == begin:
            runs[-1] = slice(runs[-1].start, end)
        else:
            runs.append(slice(begin, end))
    if not partial:
        return Piece(slice(0), queries, tuple(runs))
    columns = torch.cat([torch.arange(run.start, run.stop, device=k.index.device) for run in runs])
    offset = partial[0] * block  # only the last tile can be shorter, so offsets along the runs are multiples of a tile
    columns = columns[offset : partial[-1] * block + block]
    hidden = ~mask.allowed(q.map(lambda f: f[..., queries]).queries(), k.map(lambda f: f[..., columns]).keys())
    blind = hidden.all(-1) if len(partial) == len(tiles) else None
    if blind is not None and not bool(blind.any()):
        blind = None
    return Piece(slice(0), queries, tuple(runs), hidden if bool(hidden.any()) else None, offset, blind)
