"""Masks by distance: a sliding window, every n-th token."""

import torch
from torch import Tensor

from lit_transformer.blocks.masks.base import Bounds, Mask, at_least_one
from lit_transformer.blocks.masks.sites import Interval, Sites, Span


def _distances(q: Span, k: Span) -> Interval:
    return Interval(q.index.low - k.index.high, q.index.high - k.index.low)


class SlidingWindow(Mask):
    """Tokens less than ``window`` apart (Longformer: Beltagy et al., 2020, arXiv:2004.05150; Mistral with ``Causal``).

    In a decoder: ``And([Causal, SlidingWindow(window)])``, the last ``window`` tokens, the token itself among them.

    Args:
        window: Distances 0 ... window - 1 are visible, on both sides.
    """

    def __init__(self, window: int = 256) -> None:
        self.window = at_least_one(self, "window", window)

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        return (q.index - k.index).abs() < self.window

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        distance = _distances(q, k)
        some = (distance.low < self.window) & (distance.high > -self.window)
        return some, (distance.high < self.window) & (distance.low > -self.window)

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return max(q_start + q_len - 1, k_len - 1 - q_start) < self.window


class Dilated(Mask):
    """Every ``dilation``-th token, counted from the token itself.

    With a window it is a building block of two published patterns: ``Dilated(d) & SlidingWindow(w)`` is Longformer's
    dilated window, ``Dilated(l) | SlidingWindow(l)`` the strided pattern of Child et al., 2019 (arXiv:1904.10509).

    Args:
        dilation: Distances that are a multiple of it are visible; 1 hides nothing.
    """

    def __init__(self, dilation: int = 4) -> None:
        self.dilation = at_least_one(self, "dilation", dilation)

    def allowed(self, q: Sites, k: Sites) -> Tensor:
        """See the base class."""
        return (q.index - k.index) % self.dilation == 0

    def bounds(self, q: Span, k: Span) -> Bounds:
        """See the base class."""
        distance = _distances(q, k)
        last = torch.div(distance.high, self.dilation, rounding_mode="floor") * self.dilation
        some = last >= distance.low
        return some, some & ((distance.low == distance.high) | (self.dilation == 1))

    def hides_nothing(self, q_start: int, q_len: int, k_len: int) -> bool:
        """See the base class."""
        return self.dilation == 1
