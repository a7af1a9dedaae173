"""Who may look at whom: a mask is a predicate over a query's site and a key's site.

A mask is a value (compared and hashed by what it says), never a tensor: the same predicate, evaluated on whole rows,
on blocks or on single indices, gives the dense mask, the list of tiles worth computing and the flex mask.
"""

import torch
from torch import Tensor

from lit_transformer.blocks.masks.sites import Sites, Span
from lit_transformer.dims import SizeError

Bounds = tuple[Tensor, Tensor]
"""For each tile of queries x keys: whether any pair may be visible (never False where one is), and whether all pairs
are for sure (never True where one is not)."""


def at_least_one(mask: "Mask", name: str, value: int) -> int:
    """The value, or an error that names the recipe key."""
    if value < 1:
        raise SizeError(f"mask.{name}", f"is {value} in {type(mask).__name__}, must be at least 1")
    return value


class Mask:
    """Base of all masks: ``allowed(q, k)`` says, element by element, whether query ``q`` may look at key ``k``.

    Masks combine: ``Causal() & (SlidingWindow(256) | Sinks(4))``. A class of your own needs ``allowed`` alone; what it
    keeps in attributes must be hashable (or a list) and is what it is compared by.
    """

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """Boolean tensor of the shape that the fields of ``q`` and ``k`` broadcast to."""
        raise NotImplementedError

    def bounds(self, q: Span, k: Span) -> Bounds | None:
        """The predicate over intervals, tile by tile; None where only evaluating every pair can tell."""
        return None

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """Whether every key is visible to queries ``q_start ... q_start + q_len`` among ``k_len`` keys.

        May say False where it is not sure; kernels then evaluate the predicate.
        """
        return False

    def is_causal(self, length: int) -> bool:
        """Whether this is exactly the lower triangle over ``length`` tokens: kernels have a path of their own for it.

        May say False where it is not sure.
        """
        return False

    def __and__(self, other: "Mask") -> "Mask":
        return And([*_parts(self, And), *_parts(other, And)])

    def __or__(self, other: "Mask") -> "Mask":
        return Or([*_parts(self, Or), *_parts(other, Or)])

    def _value(self) -> tuple[object, ...]:
        return (type(self), *(tuple(v) if isinstance(v, list) else v for v in vars(self).values()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


def _parts(mask: Mask, kind: type) -> list[Mask]:
    return mask.masks if isinstance(mask, And | Or) and type(mask) is kind else [mask]


class And(Mask):
    """Visible where all of the masks say so.

    Args:
        masks: The masks to combine.
    """

    def __init__(self, masks: list[Mask]) -> None:
        if not masks:
            raise SizeError("mask.masks", "is empty in And; name at least one mask")
        self.masks = masks

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        result = self.masks[0].allowed(q, k)
        for mask in self.masks[1:]:
            result = result & mask.allowed(q, k)
        return result

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return all(mask.hides_nothing(q_start, q_len, k_len) for mask in self.masks)

    def __repr__(self) -> str:
        return " & ".join(f"({mask!r})" if isinstance(mask, Or) else repr(mask) for mask in self.masks)

    def is_causal(self, length: int) -> bool:
        """The lower triangle, where no other mask takes anything from it."""
        causal = [mask.is_causal(length) for mask in self.masks]
        return any(causal) and all(
            is_causal or mask.hides_nothing(0, length, length)
            for mask, is_causal in zip(self.masks, causal, strict=True)
        )


class Or(Mask):
    """Visible where any of the masks says so.

    Args:
        masks: The masks to combine.
    """

    def __init__(self, masks: list[Mask]) -> None:
        if not masks:
            raise SizeError("mask.masks", "is empty in Or; name at least one mask")
        self.masks = masks

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        result = self.masks[0].allowed(q, k)
        for mask in self.masks[1:]:
            result = result | mask.allowed(q, k)
        return result

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return any(mask.hides_nothing(q_start, q_len, k_len) for mask in self.masks)

    def __repr__(self) -> str:
        return " | ".join(f"({mask!r})" if isinstance(mask, And) else repr(mask) for mask in self.masks)

    def is_causal(self, length: int) -> bool:
        """The lower triangle, where all masks are."""
        return all(mask.is_causal(length) for mask in self.masks)


def everywhere(q: Sites, k: Sites) -> Tensor:
    """All True, in the shape that queries and keys broadcast to."""
    return torch.ones_like(q.index == k.index)
