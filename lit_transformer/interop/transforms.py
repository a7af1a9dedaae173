"""What happens to a weight on its way in and on its way out: every step can be taken back."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Transform:
    """Base of the steps: from their tensors to ours, and back."""

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """Theirs to ours."""
        raise NotImplementedError

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """Ours to theirs."""
        raise NotImplementedError


class Transposed(Transform):
    """Their matrix is ours on its side (GPT-2's Conv1D)."""

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [each.mT for each in theirs]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [each.mT for each in ours]


class Scaled(Transform):
    """Ours is theirs times a number: for factors of scores or of logits that we do not have.

    Args:
        factor: The number.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return theirs if self.factor == 1 else [each * self.factor for each in theirs]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return ours if self.factor == 1 else [each / self.factor for each in ours]


class Plus(Transform):
    """Ours is theirs plus a number (Gemma's norms scale by 1 + w).

    Args:
        number: The number.
    """

    def __init__(self, number: float) -> None:
        self.number = number

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [each + self.number for each in theirs]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [each - self.number for each in ours]


class Split(Transform):
    """One of theirs is several of ours, one behind the other.

    Args:
        sizes: How long each of ours is; a single number: that many equal ones.
        dim: Along which dimension.
    """

    def __init__(self, sizes: int | Sequence[int], dim: int = 0) -> None:
        self.sizes = sizes
        self.dim = dim

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        (one,) = theirs
        sizes = self.sizes
        if isinstance(sizes, int):
            part, rest = divmod(one.shape[self.dim], sizes)
            if rest:
                raise ValueError(f"{one.shape[self.dim]} is no multiple of {sizes}")
            sizes = [part] * sizes
        return list(one.split(list(sizes), self.dim))

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [torch.cat(ours, self.dim)]


class SplitHeads(Transform):
    """One of theirs is several of ours, which take turns head by head: q, k, v of head 0, then of head 1, ...

    Args:
        heads: Number of heads.
        sizes: Rows of each of ours in one head.
    """

    def __init__(self, heads: int, sizes: Sequence[int]) -> None:
        self.heads = heads
        self.sizes = list(sizes)

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        (one,) = theirs
        apart = one.view(self.heads, sum(self.sizes), *one.shape[1:]).split(self.sizes, 1)
        return [each.flatten(0, 1) for each in apart]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [torch.cat([each.view(self.heads, -1, *each.shape[1:]) for each in ours], 1).flatten(0, 1)]


class Stacked(Transform):
    """Many of theirs are one of ours with one more dimension, the first (experts)."""

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [torch.stack(theirs)]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return list(ours[0].unbind())


class PairsApart(Transform):
    """Rows that rotary angles turn: theirs are neighbours, ours stand half a head apart (DeepSeek).

    Args:
        heads: Number of heads.
        skipped: Rows of each head before the turned ones.
    """

    def __init__(self, heads: int, skipped: int = 0) -> None:
        self.heads = heads
        self.skipped = skipped

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [self._reordered(each, lambda turned: turned.unflatten(1, (-1, 2)).transpose(1, 2)) for each in theirs]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [self._reordered(each, lambda turned: turned.unflatten(1, (2, -1)).transpose(1, 2)) for each in ours]

    def _reordered(self, rows: Tensor, order: Callable[[Tensor], Tensor]) -> Tensor:
        heads = rows.view(self.heads, -1, *rows.shape[1:])
        before, turned = heads[:, : self.skipped], heads[:, self.skipped :]
        return torch.cat((before, order(turned).flatten(1, 2)), 1).flatten(0, 1)


class RowsFrom(Transform):
    """Ours is theirs without its first rows, which are never read (positions that padding stands on in RoBERTa, BART).

    They are written as zeros.

    Args:
        start: Number of rows left out.
    """

    def __init__(self, start: int) -> None:
        self.start = start

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [each[self.start :] for each in theirs]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [torch.cat((each.new_zeros(self.start, *each.shape[1:]), each)) for each in ours]


class Unwrapped(Transform):
    """Theirs has a first dimension of one."""

    def inward(self, theirs: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [each.squeeze(0) for each in theirs]

    def outward(self, ours: list[Tensor]) -> list[Tensor]:
        """See the base class."""
        return [each.unsqueeze(0) for each in ours]
