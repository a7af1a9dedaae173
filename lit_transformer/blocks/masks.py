"""Who may look at whom: a mask is a predicate over a query's site and a key's site.

A mask is a value (compared and hashed by what it says), never a tensor: the same predicate, evaluated on whole rows,
on blocks or on single indices, gives the dense mask, the list of blocks worth computing and the flex mask.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
    """

    index: Tensor
    document: Tensor | None = None
    prefix: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Sites":
        """These sites with every field changed in the same way."""
        document = None if self.document is None else change(self.document)
        return Sites(change(self.index), document, None if self.prefix is None else change(self.prefix))

    def queries(self) -> "Sites":
        """The same sites as rows: (B, T) becomes (B, T, 1)."""
        return self.map(lambda field: field.unsqueeze(-1))

    def keys(self) -> "Sites":
        """The same sites as columns: (B, S) becomes (B, 1, S)."""
        return self.map(lambda field: field.unsqueeze(-2))


class Mask:
    """Base of all masks: ``allowed(q, k)`` says, element by element, whether query ``q`` may look at key ``k``.

    Masks combine: ``Causal() & SlidingWindow(256) | GlobalTokens(4)``.
    """

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """Boolean tensor of the shape that the fields of ``q`` and ``k`` broadcast to."""
        raise NotImplementedError

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """Whether every key is visible to queries ``q_start ... q_start + q_len`` among ``k_len`` keys.

        May say False where it is not sure; kernels then evaluate the predicate.
        """
        return False

    def is_causal(self) -> bool:
        """Whether this is exactly the lower triangle, for which kernels have a path of their own."""
        return False

    def __and__(self, other: "Mask") -> "Mask":
        return And([self, other])

    def __or__(self, other: "Mask") -> "Mask":
        return Or([self, other])

    def _value(self) -> tuple[object, ...]:
        return (type(self), *(tuple(v) if isinstance(v, list) else v for v in vars(self).values()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class And(Mask):
    """Visible where all of the masks say so.

    Args:
        masks: The masks to combine.
    """

    def __init__(self, masks: list[Mask]) -> None:
        self.masks = masks

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        result = self.masks[0].allowed(q, k)
        for mask in self.masks[1:]:
            result = result & mask.allowed(q, k)
        return result

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        return all(mask.hides_nothing(q_start, q_len, k_len) for mask in self.masks)


class Or(Mask):
    """Visible where any of the masks says so.

    Args:
        masks: The masks to combine.
    """

    def __init__(self, masks: list[Mask]) -> None:
        self.masks = masks

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        result = self.masks[0].allowed(q, k)
        for mask in self.masks[1:]:
            result = result | mask.allowed(q, k)
        return result

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        return any(mask.hides_nothing(q_start, q_len, k_len) for mask in self.masks)


class Full(Mask):
    """Everybody sees everybody: encoders, cross-attention."""

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        return torch.ones_like(q.index == k.index)

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        return True


class Causal(Mask):
    """Nobody sees what comes later: language models and decoders."""

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        return k.index <= q.index

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        return k_len <= q_start + 1

    def is_causal(self) -> bool:
        return True


class Documents(Mask):
    """Packed documents do not see each other, and nobody sees padding (document -1).

    The stack adds it by itself wherever a batch says which document a token belongs to.
    """

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        if q.document is None or k.document is None:
            return torch.ones_like(q.index == k.index)
        return (q.document == k.document) & (k.document >= 0)
