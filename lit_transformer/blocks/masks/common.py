"""The masks of the architectures: full, causal, prefix-causal, documents."""

import torch
from torch import Tensor

from lit_transformer.blocks.masks.base import Bounds, Mask, everywhere
from lit_transformer.blocks.masks.sites import Sites, Span


class Full(Mask):
    """Everybody sees everybody: encoders, cross-attention."""

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        return everywhere(q, k)

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        tiles = torch.ones_like(q.index.low == k.index.low)
        return tiles, tiles

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return True


class Causal(Mask):
    """Nobody sees what comes later: language models and decoders."""

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        return k.index <= q.index

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        return k.index.low <= q.index.high, k.index.high <= q.index.low

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return k_len <= q_start + 1

    def is_causal(self, length: int) -> bool:
        """See the base class."""
        return True


class PrefixCausal(Mask):
    """Everybody sees the prefix of the row, and otherwise nobody what comes later (prefix-LM: Raffel et al., 2020).

    Which tokens are the prefix comes with the batch; without any, this is ``Causal``.
    """

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        causal = k.index <= q.index
        return causal if k.prefix is None else causal | k.prefix

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        some, every = k.index.low <= q.index.high, k.index.high <= q.index.low
        return (some, every) if k.prefix is None else (some | k.prefix.high, every | k.prefix.low)

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return k_len <= q_start + 1


class Documents(Mask):
    """Packed documents do not see each other, and nobody sees padding (document -1).

    The stack adds it by itself wherever a batch says which document a token belongs to.
    """

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        if q.document is None or k.document is None:
            return everywhere(q, k)
        return (q.document == k.document) & (k.document >= 0)

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        if q.document is None or k.document is None:
            return Full().bounds(q, k)
        overlap = (q.document.low <= k.document.high) & (k.document.low <= q.document.high) & (k.document.high >= 0)
        one = (q.document.low == q.document.high) & (k.document.low == k.document.high)
        return overlap & (q.document.high >= 0), overlap & one
