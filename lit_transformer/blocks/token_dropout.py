"""Dropout of whole tokens."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_transformer.blocks.embedding import Embedding
from lit_transformer.blocks.norms import NormFactory
from lit_transformer.dims import Dims, SizeError


class TokenDropout(Embedding):
    """Zeroes the vectors of some tokens as a whole in training, so that no single word decides.

    After Iyyer et al., 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text Classification". What is
    left is not scaled up.

    Args:
        size: Number of tokens V.
        dims: Sizes.
        dropout: Share of the embedded stream that is dropped in training.
        types: Number of token types; 0: the network knows none.
        norm: Makes a norm of the embedded stream, behind the position; none if left out.
        token_dropout: Share of the tokens that are zeroed.
    """

    def __init__(
        self,
        size: int,
        dims: Dims,
        dropout: float = 0.0,
        types: int = 0,
        norm: NormFactory | None = None,
        token_dropout: float = 0.1,
    ) -> None:
        super().__init__(size, dims, dropout, types, norm)
        if not 0 <= token_dropout < 1:
            raise SizeError("embedding.token_dropout", f"is {token_dropout}, must be at least 0 and below 1")
        self.token_dropout = token_dropout

    def forward(self, tokens: Int[Tensor, "B T"], types: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """Looks up; in training some come back as zeros."""
        x = super().forward(tokens, types)
        if not self.training or not self.token_dropout:
            return x
        kept = torch.rand(x.shape[:2], device=x.device) >= self.token_dropout
        return x * kept.unsqueeze(-1)
