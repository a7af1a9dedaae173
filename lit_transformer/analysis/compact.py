"""Matrices of weights in few bytes: one byte a cell, levels of detail, deflated tiles, base64."""

import base64
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

TILE = 256
"""Side of the tiles that a level is cut into: a page reads only those that it shows."""

SMALLEST = 64
"""A pyramid ends at the first level that is at most this wide and high."""

Cells = UInt8[np.ndarray, "T S"]


def quantised(weights: Float[Tensor, "*size"]) -> UInt8[np.ndarray, "*size"]:
    """Weights from 0 to 1 as bytes, ``255 sqrt(w)``: the small ones keep more digits, off by at most 0.004.

    Args:
        weights: What ``restored`` gives back.
    """
    cells: np.ndarray = weights.clamp(0, 1).sqrt().mul(255).round().to(torch.uint8).cpu().numpy()
    return cells


def restored(cells: UInt8[np.ndarray, "*size"]) -> Float[Tensor, "*size"]:
    """What bytes stand for."""
    return torch.from_numpy(np.array(cells)).float().div(255).square()


def halved(cells: Cells) -> Cells:
    """The next level: each cell is the largest of four, so that no strong link is lost from sight."""
    rows, columns = cells.shape
    even = np.pad(cells, ((0, rows % 2), (0, columns % 2)))
    tall = np.maximum(even[::2], even[1::2])
    largest: np.ndarray = np.maximum(tall[:, ::2], tall[:, 1::2])
    return largest


def pyramid(cells: Cells, smallest: int = SMALLEST) -> list[Cells]:
    """The matrix, then each level half as wide and high, down to ``smallest``."""
    levels = [cells]
    while max(levels[-1].shape) > smallest:
        levels.append(halved(levels[-1]))
    return levels


def depth(shape: tuple[int, int], smallest: int = SMALLEST) -> int:
    """How often a matrix is halved on its way to ``smallest``."""
    return max(0, (-(-max(shape) // smallest) - 1).bit_length())


def pooled(weights: Float[Tensor, "H t s"], step: int, columns: int) -> Float[Tensor, "H r c"]:
    """What halving ``log2(step)`` times gives, in one go: each cell is the largest of a square's.

    Args:
        weights: Of some queries, a multiple of ``step`` but for the last ones.
        step: Side of the squares.
        columns: Number of all keys; those behind the given ones have no weight.
    """
    rows = weights.shape[1]
    narrow = -(-weights.shape[2] // step)
    padded = F.pad(weights, (0, narrow * step - weights.shape[2], 0, -rows % step))
    largest = padded.unflatten(-1, (narrow, step)).amax(-1).unflatten(1, (-1, step)).amax(2)
    return F.pad(largest, (0, -(-columns // step) - narrow))


GROUP = 64
"""Keys whose largest weight is looked for before the strongest are."""


def strongest(
    weights: Float[Tensor, "H T S"], count: int
) -> tuple[Int[np.ndarray, "H T k"], UInt8[np.ndarray, "H T k"]]:
    """The keys that each query looks at most, strongest first, and their weights as bytes.

    Args:
        weights: Of some queries.
        count: How many keys; where there are fewer, the rest is key 0 without a weight.
    """
    fewer = max(0, count - weights.shape[-1])
    if weights.shape[-1] <= count * GROUP:
        values, keys = F.pad(weights, (0, fewer)).topk(count, dim=-1)
    else:  # the strongest k keys are in the k groups with the strongest key: a seventh of the work at 8,192 keys
        groups = F.pad(weights, (0, -weights.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))
        chosen = groups.amax(-1).topk(count, dim=-1).indices
        found = groups.gather(2, chosen.unsqueeze(-1).expand(-1, -1, -1, GROUP)).flatten(2)
        values, place = found.topk(count, dim=-1)
        keys = chosen.gather(-1, place // GROUP) * GROUP + place % GROUP
    keys = torch.where(values > 0, keys, 0)
    return keys.to(torch.int32).cpu().numpy(), quantised(values)


def signed_bytes(vectors: Float[Tensor, "N K"]) -> tuple[Float[np.ndarray, " N"], np.ndarray]:
    """Vectors as signed bytes, each with what its bytes are to be multiplied by."""
    vectors = vectors.float().cpu()
    scale = vectors.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return scale.squeeze(-1).numpy().astype("<f4"), (vectors / scale).round().to(torch.int8).numpy()


@dataclass
class Level:
    """One level of a matrix, in tiles.

    Args:
        rows: Height.
        columns: Width.
        blob: Number of the blob that the tiles stand in, one behind the other, row by row.
        lengths: Bytes of each tile; 0 where it is all zeros.
    """

    rows: int
    columns: int
    blob: int
    lengths: list[int]

    def plain(self) -> list[object]:
        """For JSON."""
        return [self.rows, self.columns, self.blob, self.lengths]


@overload
def tiled(cells: Cells) -> tuple[bytes, list[int]]: ...
@overload
def tiled(cells: Cells, room: int | None) -> tuple[bytes, list[int]] | None: ...
def tiled(cells: Cells, room: int | None = None) -> tuple[bytes, list[int]] | None:
    """Deflated tiles of a matrix, row by row, and the bytes of each; None as soon as there is no room for them.

    Args:
        cells: The matrix.
        room: Most bytes.
    """
    parts: list[bytes] = []
    for row in range(0, cells.shape[0], TILE):
        for column in range(0, cells.shape[1], TILE):
            tile = np.ascontiguousarray(cells[row : row + TILE, column : column + TILE])
            parts.append(zlib.compress(tile.tobytes(), 7) if tile.any() else b"")
        if room is not None and sum(map(len, parts)) > room:
            return None
    return b"".join(parts), [len(part) for part in parts]


@dataclass
class Store:
    """Blobs of a page, up to a number of bytes.

    Args:
        limit: Most bytes of all blobs as base64.
    """

    limit: int
    blobs: list[bytes] = field(default_factory=list)
    size: int = 0

    def fits(self, count: int) -> bool:
        """Whether there is room for this many more bytes (before base64)."""
        return self.size + weight(count) <= self.limit

    @property
    def room(self) -> int:
        """Bytes that one more blob may have."""
        return max(0, (self.limit - self.size - 64) // 4 * 3)

    def put(self, data: bytes) -> int:
        """Adds a blob, whether it fits or not; gives its number."""
        self.blobs.append(data)
        self.size += weight(len(data))
        return len(self.blobs) - 1

    def put_array(self, *arrays: np.ndarray) -> int:
        """Adds arrays, one behind the other, deflated."""
        return self.put(packed(*arrays))

    def put_levels(self, levels: Sequence[tuple[Cells, tuple[bytes, list[int]]]]) -> list[object]:
        """Adds the levels of a matrix; gives what describes them."""
        return [Level(len(cells), cells.shape[1], self.put(data), lengths).plain() for cells, (data, lengths) in levels]

    def elements(self) -> Iterable[str]:
        """One element of HTML for each blob: data, that no browser runs."""
        for number, data in enumerate(self.blobs):
            text = base64.b64encode(data).decode()
            yield f'<script type="application/octet-stream" id="b{number}">{text}</script>'


def packed(*arrays: np.ndarray) -> bytes:
    """Arrays, one behind the other, deflated."""
    return zlib.compress(b"".join(np.ascontiguousarray(each).tobytes() for each in arrays), 7)


def weight(count: int) -> int:
    """Bytes in the page of so many bytes of data."""
    return 4 * (-(-count // 3)) + 64
