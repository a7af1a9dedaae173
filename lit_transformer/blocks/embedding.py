"""Tokens in, logits out."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.blocks.linear import Linear
from lit_transformer.dims import Dims


class Embedding(nn.Module):
    """A vector per token.

    Args:
        size: Number of tokens V.
        dims: Sizes.
        dropout: Share of the embedded stream that is dropped in training.
    """

    def __init__(self, size: int, dims: Dims, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, dims.d_model))
        self.dropout = dropout

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Looks up."""
        return F.embedding(tokens, self.weight)

    def drop(self, x: Tensor) -> Tensor:
        """Dropout, after the position was added."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class ScaledEmbedding(Embedding):
    """Embeddings times sqrt(D), as in the original Transformer and Gemma."""

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Looks up and scales."""
        return F.embedding(tokens, self.weight) * float(self.weight.shape[-1] ** 0.5)


class Head(nn.Module):
    """Base of the heads: (B, T, D) -> logits (B, T, V) by ``weight`` (V, D)."""

    weight: Tensor

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Logits."""
        return F.linear(hidden, self.weight)


class TiedHead(Head):
    """Scores tokens by the embedding's own vectors (Press & Wolf, 2017, arXiv:1608.05859).

    Args:
        dims: Sizes.
        embedding: Whose weight it shares.
    """

    def __init__(self, dims: Dims, embedding: Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight


class LinearHead(Head):
    """A product with weights of its own.

    Args:
        dims: Sizes.
        embedding: Says how many tokens there are.
    """

    def __init__(self, dims: Dims, embedding: Embedding) -> None:
        super().__init__()
        self.weight = Linear(dims.d_model, embedding.weight.shape[0], bias=False).weight
