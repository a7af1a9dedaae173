"""Masks that cut a document into blocks and let whole blocks look at whole blocks."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_transformer.blocks.masks.base import Bounds, Mask, at_least_one
from lit_transformer.blocks.masks.sites import Interval, Sites, Span
from lit_transformer.dims import SizeError

_PRIME = 2**31 - 1


def _over_blocks(pattern: Callable[[Tensor, Tensor], Tensor], q: Interval, k: Interval, size: int) -> Bounds:
    """Bounds of a pattern of blocks: exact for tiles that reach over at most two blocks, careful for wider ones."""
    (q_first, q_last), (k_first, k_last) = (
        (torch.div(x.low, size, rounding_mode="floor"), torch.div(x.high, size, rounding_mode="floor")) for x in (q, k)
    )
    narrow = (q_last - q_first <= 1) & (k_last - k_first <= 1)
    corners = [pattern(a, b) for a in (q_first, q_last) for b in (k_first, k_last)]
    any_corner = corners[0] | corners[1] | corners[2] | corners[3]
    return ~narrow | any_corner, narrow & corners[0] & corners[1] & corners[2] & corners[3]


class BlockSparse(Mask):
    """Neighbouring blocks, and the first blocks as common ground (BigBird without its random part).

    Args:
        block: Tokens of a block; a multiple of the kernel's block saves the most.
        neighbours: Number of blocks that are visible on each side of the query's own.
        first: Number of blocks at the start of the document that see all and are seen by all.
    """

    def __init__(self, block: int = 64, neighbours: int = 1, first: int = 1) -> None:
        self.block = at_least_one(self, "block", block)
        self.neighbours, self.first = neighbours, first
        for name, value in (("neighbours", neighbours), ("first", first)):
            if value < 0:
                raise SizeError(f"mask.{name}", f"is {value} in {type(self).__name__}, must be at least 0")

    def pattern(self, q: Tensor, k: Tensor) -> Tensor:
        """Whether the block ``q`` of queries may look at the block ``k`` of keys."""
        return ((q - k).abs() <= self.neighbours) | (torch.minimum(q, k) < self.first)

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        blocks = (torch.div(x.place, self.block, rounding_mode="floor") for x in (q, k))
        return self.pattern(*blocks)

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        return _over_blocks(self.pattern, q.place, k.place, self.block)

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return max(q_start + q_len, k_len) <= self.block * (1 + max(self.neighbours, self.first))


class BigBird(BlockSparse):
    """Neighbouring, first and randomly drawn blocks (Zaheer et al., 2020, arXiv:2007.14062).

    Each block draws ``random`` earlier blocks, one from each equal part of what is before it, and both see each other.
    The draw depends on the seed and the block's number alone, so the pattern does not change as the text grows.

    Args:
        block: Tokens of a block; a multiple of the kernel's block saves the most.
        neighbours: Number of blocks that are visible on each side of the query's own.
        first: Number of blocks at the start of the document that see all and are seen by all.
        random: Number of earlier blocks that each block draws.
        seed: Of the draw.
    """

    def __init__(self, block: int = 64, neighbours: int = 1, first: int = 1, random: int = 3, seed: int = 0) -> None:
        super().__init__(block, neighbours, first)
        self.random = at_least_one(self, "random", random)
        self.seed = seed % _PRIME

    def pattern(self, q: Tensor, k: Tensor) -> Tensor:
        """See the base class."""
        seen = super().pattern(q, k)
        later, earlier = torch.maximum(q, k), torch.minimum(q, k)
        for part in range(self.random):
            low = torch.div(part * later, self.random, rounding_mode="floor")
            size = torch.div((part + 1) * later, self.random, rounding_mode="floor") - low
            seen = seen | ((size > 0) & (earlier == low + self._number(later, part) % size.clamp(min=1)))
        return seen

    def _number(self, block: Tensor, part: int) -> Tensor:
        """A number that looks random, from whole numbers below 2^31: the same on every device and on single indices."""
        number = (block * 1_103_515_245 + part * 40_503 + self.seed * 69_621 + 12_345) % _PRIME
        for factor in (48_271, 69_621, 16_807):
            number = (number ^ (number >> 15)) * factor % _PRIME
        return number


class FixedSparse(Mask):
    """The token's own block and the last tokens of every block, as summaries (Child et al., 2019, arXiv:1904.10509).

    Args:
        block: Tokens of a block.
        summary: Number of tokens at the end of each block that are visible to all.
    """

    def __init__(self, block: int = 64, summary: int = 8) -> None:
        self.block = at_least_one(self, "block", block)
        self.summary = at_least_one(self, "summary", summary)
        if summary > block:
            raise SizeError("mask.summary", f"is {summary} in FixedSparse, must be at most the block {block}")

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        q_block, k_block = (torch.div(x.place, self.block, rounding_mode="floor") for x in (q, k))
        return (q_block == k_block) | (k.place % self.block >= self.block - self.summary)

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        own, only_own = _over_blocks(torch.eq, q.place, k.place, self.block)
        first, last = k.place.low % self.block, k.place.high % self.block
        within = k.place.high - k.place.low == last - first
        edge = self.block - self.summary
        return own | ~within | (last >= edge), only_own | (within & (first >= edge))

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return self.summary == self.block or max(q_start + q_len, k_len) <= self.block
