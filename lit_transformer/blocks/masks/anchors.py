"""Masks by place: the first tokens of a document as common ground."""

import torch
from torch import Tensor

from lit_transformer.blocks.masks.base import Bounds, Mask, at_least_one, everywhere
from lit_transformer.blocks.masks.sites import Sites, Span


class GlobalTokens(Mask):
    """The first tokens of each document see everybody and are seen by everybody (Longformer, arXiv:2004.05150).

    Of use with ``|``: ``SlidingWindow(256) | GlobalTokens(1)``.

    Args:
        count: Number of global tokens.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = at_least_one(self, "count", count)

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        return (q.place < self.count) | (k.place < self.count)

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        some = (q.place.low < self.count) | (k.place.low < self.count)
        return some, (q.place.high < self.count) | (k.place.high < self.count)

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return k_len <= self.count or q_start + q_len <= self.count


class Sinks(Mask):
    """The first tokens of each document stay visible to all (attention sinks: Xiao et al., 2024, arXiv:2309.17453).

    Of use with ``|``: ``Causal() & (SlidingWindow(256) | Sinks(4))``.

    Args:
        count: Number of sinks.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = at_least_one(self, "count", count)

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        return everywhere(q, k) & (k.place < self.count)

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        all_queries = torch.ones_like(q.index.low, dtype=torch.bool)
        return all_queries & (k.place.low < self.count), all_queries & (k.place.high < self.count)

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return k_len <= self.count
