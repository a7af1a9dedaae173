"""In which order norms, sublayers and additions stand."""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks.norms import Norm
from lit_transformer.dims import Dims

NormFactory = Callable[[Dims], Norm]
Sublayer = Callable[[Tensor], tuple[Tensor, Any]]
"""Attention or feed-forward with everything but its input filled in; what it returns beside (B, T, D) is handed through."""


class Residual(nn.Module):
    """Base of the residual orders: carries the stream (B, T, D) past the sublayers of one layer.

    Args:
        dims: Sizes.
        norm: Makes one norm.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
    """

    def __init__(self, dims: Dims, norm: NormFactory, sublayers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm(dims) for _ in range(sublayers))
        self.dropout = dropout

    def forward(self, x: Tensor, sublayers: Sequence[Sublayer]) -> tuple[Tensor, list[Any]]:
        """The stream after all sublayers, and what each returned beside its output."""
        extras = []
        for norm, sublayer in zip(self.norms, sublayers, strict=True):
            x, extra = self.step(x, norm, sublayer)
            extras.append(extra)
        return x, extras

    def step(self, x: Tensor, norm: nn.Module, sublayer: Sublayer) -> tuple[Tensor, Any]:
        """One sublayer: what most orders differ in."""
        raise NotImplementedError

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of a sublayer's output."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    @classmethod
    def final_norm(cls, dims: Dims, norm: NormFactory) -> nn.Module:
        """What stands behind the last layer."""
        return nn.Identity()


class PreNorm(Residual):
    """``x + f(norm(x))``: the stream itself is never normalised, so depth trains without warm-up (GPT-2, Llama)."""

    def step(self, x: Tensor, norm: nn.Module, sublayer: Sublayer) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(norm(x))
        return x + self.drop(y), extra

    @classmethod
    def final_norm(cls, dims: Dims, norm: NormFactory) -> nn.Module:
        """One more norm: the head needs a normalised stream."""
        return norm(dims)


class PostNorm(Residual):
    """``norm(x + f(x))``: the original order (Vaswani et al., 2017; BERT)."""

    def step(self, x: Tensor, norm: nn.Module, sublayer: Sublayer) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(x)
        return norm(x + self.drop(y)), extra
