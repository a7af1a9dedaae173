"""Embeddings of a token together with those before it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.blocks.embedding import Embedding, look_up
from lit_transformer.blocks.norms import NormFactory
from lit_transformer.dims import Dims, SizeError

_FACTOR = 1_000_003
"""A prime: what hashes of n-grams are multiplied by from token to token."""


class NGramEmbedding(Embedding):
    """Adds to each token the vectors of the pairs (triples, ...) of tokens that end with it, hashed into one table.

    A phrase such as "not good" has a vector of its own before any layer has looked at it (fastText: Joulin et al.,
    2017, arXiv:1607.01759; as input of a Transformer: Huang et al., 2025, arXiv:2501.16975). It needs the whole row at
    once, so it is for networks that do not decode.

    Args:
        size: Number of tokens V.
        dims: Sizes.
        dropout: Share of the embedded stream that is dropped in training.
        types: Number of token types; 0: the network knows none.
        norm: Makes a norm of the embedded stream, behind the position; none if left out.
        buckets: Number of vectors that n-grams share.
        longest: Number of tokens in the longest n-gram.
        token_dropout: Share of the tokens whose vector is zeroed as a whole in training (Iyyer et al., 2015).
    """

    def __init__(
        self,
        size: int,
        dims: Dims,
        dropout: float = 0.0,
        types: int = 0,
        norm: NormFactory | None = None,
        buckets: int = 2**16,
        longest: int = 2,
        token_dropout: float = 0.0,
    ) -> None:
        super().__init__(size, dims, dropout, types, norm)
        for name, value, least in (("buckets", buckets, 1), ("longest", longest, 2)):
            if value < least:
                raise SizeError(f"embedding.{name}", f"is {value}, must be at least {least}")
        if not 0 <= token_dropout < 1:
            raise SizeError("embedding.token_dropout", f"is {token_dropout}, must be at least 0 and below 1")
        self.longest = longest
        self.token_dropout = token_dropout
        self.ngrams = nn.Parameter(torch.empty(buckets, dims.d_model))

    def forward(self, tokens: Int[Tensor, "B T"], types: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """Looks up tokens and n-grams; the first tokens of a row have fewer n-grams."""
        x = super().forward(tokens, types)
        hashed = tokens.long() + 1
        for length in range(2, self.longest + 1):
            hashed = (hashed[:, :-1] * _FACTOR + tokens[:, length - 1 :] + 1) % 2**31
            found = look_up(hashed % self.ngrams.shape[0], self.ngrams)
            x = x + F.pad(found, (0, 0, x.shape[1] - found.shape[1], 0))
        if self.training and self.token_dropout:
            kept = torch.rand(x.shape[:2], device=x.device) >= self.token_dropout
            x = x * kept.unsqueeze(-1)
        return x
