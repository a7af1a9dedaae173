"""The pattern of a mask: counted, and drawn for the terminal, as PNG and as SVG."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from lit_transformer.blocks.masks import Documents, Mask, Sites, tiles
from lit_transformer.errors import EnvironmentFault, UserError

FORMATS = (".png", ".svg", ".txt")
LONGEST = 32_768
"""Most tokens: every pair is looked at."""

_CELLS = 1024
"""Most cells along one side of the grid that pictures are drawn from."""


@dataclass(frozen=True)
class MaskPicture:
    """What a mask shows of one row of tokens.

    Args:
        title: What the mask is called.
        length: Tokens.
        visible: Number of visible pairs.
        tile: Side of the tiles of ``computed``.
        computed: Share of the tiles that hold a visible pair: what a kernel that skips the others still computes.
        grid: Share of visible pairs in each cell, (N, N), queries from top to bottom.
    """

    title: str
    length: int
    visible: int
    tile: int
    computed: float
    grid: Tensor

    @property
    def density(self) -> float:
        """Share of the pairs that is visible."""
        return self.visible / self.length**2

    @property
    def of_causal(self) -> float:
        """Visible pairs over those of the causal mask."""
        return self.visible / (self.length * (self.length + 1) / 2)

    def flops(self, head_dim: int, n_heads: int) -> int:
        """Floating-point operations of the forward scores and values of one layer: two products over visible pairs."""
        return 4 * head_dim * n_heads * self.visible

    def summary(self) -> str:
        """Density and savings, in three lines."""
        return "\n".join([
            f"visible      {self.density:7.2%} of all pairs ({self.visible:,} of {self.length**2:,}); "
            f"the causal mask times {self.of_causal:.3f}",
            f"FLOPs saved  {1 - self.density:7.2%} of full attention's scores and values",
            f"computed     {self.computed:7.2%} by a kernel that skips tiles of {self.tile} x {self.tile}",
        ])  # fmt: skip

    def text(self, width: int = 64) -> str:
        """Drawn with blocks, at most ``width`` columns; shades where a character stands for many pairs."""
        grid = _shrunk(self.grid, width)
        if grid.shape[0] == self.length:  # one pair a pixel, two pixels a character
            rows = torch.nn.functional.pad(grid > 0, (0, 0, 0, grid.shape[0] % 2)).view(-1, 2, grid.shape[1])
            return "\n".join("".join(" ▀▄█"[int(a) + 2 * int(b)] for a, b in zip(*pair, strict=True)) for pair in rows)
        grid = torch.nn.functional.pad(grid, (0, 0, 0, grid.shape[0] % 2)).view(-1, 2, grid.shape[1]).mean(1)
        shades = (grid * 4).ceil().clamp(max=4).int().tolist()
        return "\n".join("".join(" ░▒▓█"[shade] for shade in row) for row in shades)

    def png(self) -> bytes:
        """A grey-scale image, black where a query (row) sees a key (column)."""
        size = self.grid.shape[0]
        scale = max(1, 768 // size)
        grey = (255 - 255 * self.grid).round().to(torch.uint8)
        grey = grey.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        side = grey.shape[0]
        lines = torch.cat((torch.zeros(side, 1, dtype=torch.uint8), grey), dim=1)

        def chunk(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        pixels = zlib.compress(bytes(lines.flatten().tolist()), 9)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

    def svg(self) -> str:
        """A vector image with a title and named sides; equal cells beside each other are one rectangle."""
        grid = _shrunk(self.grid, 128)
        size = grid.shape[0]
        rectangles = []
        for y, row in enumerate((grid * 255).round().int().tolist()):
            x = 0
            while x < size:
                end = x
                while end < size and row[end] == row[x]:
                    end += 1
                if row[x]:
                    shade = "" if row[x] == 255 else f' fill-opacity="{row[x] / 255:.3g}"'
                    rectangles.append(f'<rect x="{x}" y="{y}" width="{end - x}" height="1"{shade}/>')
                x = end
        side = 512
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + 40} {side + 64}" role="img" '
            f'aria-label="{escape(self.title)}" font-family="sans-serif" font-size="14">',
            f'<rect width="{side + 40}" height="{side + 64}" fill="white"/>',
            f'<text x="30" y="18">{escape(_cut(self.title, 66))}</text>',
            f'<text x="30" y="{side + 56}">keys 0 ... {self.length - 1}; {self.density:.2%} visible</text>',
            f'<text transform="translate(18 {side + 30}) rotate(-90)">queries, from the top</text>',
            f'<svg x="30" y="30" width="{side}" height="{side}" viewBox="0 0 {size} {size}" '
            'shape-rendering="crispEdges">',
            f'<rect width="{size}" height="{size}" fill="#eee"/>', *rectangles, "</svg>", "</svg>", "",
        ])  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Writes the picture; the name's ending says how: .png, .svg or .txt.

        Raises:
            UserError: Another ending.
            EnvironmentFault: The file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise UserError(f"{path}: must end in {', '.join(FORMATS)}")
        kind = path.suffix.lower()
        if kind == ".png":
            content = self.png()
        else:
            content = (self.svg() if kind == ".svg" else f"{self.title}\n{self.text()}\n{self.summary()}\n").encode()
        try:
            path.write_bytes(content)
        except OSError as error:
            raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from error

    def _repr_svg_(self) -> str:
        return self.svg()


def draw_mask(
    mask: Mask, length: int = 256, documents: Sequence[int] | None = None, prefix: int = 0, tile: int | None = None
) -> MaskPicture:
    """Counts and draws what a mask shows of one row.

    Args:
        mask: The mask.
        length: Tokens of the row.
        documents: Lengths of documents packed into the row, what is left over is padding; left out: one document.
        prefix: Number of first tokens that everybody may see, for masks that know a prefix.
        tile: Side of the tiles that a kernel computes or skips; left out: 64, less for rows of less than 512.

    Raises:
        UserError: An impossible length, or documents longer than the row.
    """
    tile = max(1, min(64, length // 8)) if tile is None else tile
    for name, value in (("length", length), ("tile", tile)):
        if not 1 <= value <= LONGEST:
            raise UserError(f"{name}: is {value}, must be from 1 to {LONGEST}")
    if not 0 <= prefix <= length:
        raise UserError(f"prefix: is {prefix}, must be from 0 to the length {length}")
    index = torch.arange(length).unsqueeze(0)
    sites = Sites(index, _numbers(documents, length), index < prefix if prefix else None).with_start()
    shown = mask if documents is None else mask & Documents()
    cell = -(-length // _CELLS)
    size = -(-length // cell)
    grid = torch.zeros(size, size)
    visible = 0
    for start in range(0, length, cell * max(1, 2**22 // (length * cell))):
        stop = min(length, start + cell * max(1, 2**22 // (length * cell)))
        allowed = shown.allowed(sites.map(lambda f, a=start, b=stop: f[:, a:b]).queries(), sites.keys())[0]  # type: ignore[misc]
        visible += int(allowed.sum())
        padded = torch.nn.functional.pad(allowed.float(), (0, size * cell - length, 0, -(stop - start) % cell))
        sums = padded.view(-1, cell, size, cell).sum((1, 3))
        grid[start // cell : start // cell + sums.shape[0]] = sums
    ends = torch.full((size,), cell)
    ends[-1] = length - cell * (size - 1)
    grid = grid / (ends.unsqueeze(0) * ends.unsqueeze(1))
    sides = torch.full((-(-length // tile),), tile)
    sides[-1] = length - tile * (len(sides) - 1)
    some = tiles(shown, sites, sites, tile, tile).some[0]
    computed = int((some * sides.unsqueeze(0) * sides.unsqueeze(1)).sum()) / length**2
    return MaskPicture(str(mask), length, visible, tile, computed, grid)


def _numbers(documents: Sequence[int] | None, length: int) -> Tensor | None:
    if documents is None:
        return None
    if sum(documents) > length or any(each < 1 for each in documents):
        raise UserError(f"documents: {', '.join(map(str, documents))} must be at least 1 each and {length} together")
    numbers = torch.full((1, length), -1)
    numbers[0, : sum(documents)] = torch.arange(len(documents)).repeat_interleave(torch.tensor(documents))
    return numbers


def _shrunk(grid: Tensor, size: int) -> Tensor:
    """The grid with at most ``size`` cells a side, each the mean of those that it stands for."""
    if grid.shape[0] <= size:
        return grid
    return torch.nn.functional.adaptive_avg_pool2d(grid[None, None], size)[0, 0]


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 3] + "..."
