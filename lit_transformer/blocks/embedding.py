"""Tokens in, logits out."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from lit_transformer.blocks.feed_forward import GELU, Activation
from lit_transformer.blocks.linear import Linear
from lit_transformer.blocks.norms import LayerNorm, NormFactory
from lit_transformer.blocks.products import product
from lit_transformer.dims import Dims, SizeError
from lit_transformer.errors import UserError


class Embedding(nn.Module):
    """A vector per token, and one per token type where there are types.

    Args:
        size: Number of tokens V.
        dims: Sizes.
        dropout: Share of the embedded stream that is dropped in training.
        types: Number of token types (BERT's segments); 0: the network knows none.
        norm: Makes a norm of the embedded stream, behind the position (BERT, BLOOM); none if left out.
        rows: Rows of the table, at least V; left out: V. Further ones belong to no token: tables are padded to a round
            number for speed, and heads that share the table score them too.
    """

    def __init__(
        self,
        size: int,
        dims: Dims,
        dropout: float = 0.0,
        types: int = 0,
        norm: NormFactory | None = None,
        rows: int | None = None,
    ) -> None:
        super().__init__()
        if types < 0:
            raise SizeError("embedding.types", f"is {types}, must be at least 0")
        if rows is not None and rows < 1:
            raise SizeError("embedding.rows", f"is {rows}, must be at least the number of tokens")
        self.weight = nn.Parameter(torch.empty(max(size, rows or 0), dims.d_model))
        self.types = nn.Parameter(torch.empty(types, dims.d_model)) if types else None
        self.norm = norm(dims) if norm else None
        self.dropout = dropout

    def forward(self, tokens: Int[Tensor, "B T"], types: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """Looks up; ``types`` left out are 0.

        Raises:
            UserError: Types are given and the embedding has none.
        """
        x = look_up(tokens, self.weight)
        if self.types is None:
            if types is not None:
                raise UserError("embedding.types: is 0, and the batch has token types; say how many there are")
            return x
        return x + (self.types[0] if types is None else F.embedding(types, self.types))

    def drop(self, x: Tensor) -> Tensor:
        """Norm and dropout, after the position was added."""
        x = x if self.norm is None else self.norm(x)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def look_up(tokens: Int[Tensor, "B T"], table: Float[Tensor, "V D"]) -> Float[Tensor, "B T D"]:
    """The tokens' vectors. Of a table that devices share out each knows some, and what the others know is added."""
    if not isinstance(table, DTensor):
        return F.embedding(tokens, table)
    ids = DTensor.from_local(tokens, table.device_mesh, [Replicate()], run_check=False)
    found = F.embedding(ids, table)
    assert isinstance(found, DTensor)
    whole: Tensor = found.redistribute(placements=[Replicate()]).to_local()
    return whole


class ScaledEmbedding(Embedding):
    """Embeddings times sqrt(D), as in the original Transformer and Gemma."""

    def forward(self, tokens: Int[Tensor, "B T"], types: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """Looks up and scales."""
        return super().forward(tokens, types) * float(self.weight.shape[-1] ** 0.5)


class Head(nn.Module):
    """Base of the heads: (B, T, D) -> logits (B, T, V) by ``weight`` (V, D)."""

    weight: Tensor

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Logits."""
        return product(hidden, self.weight)


class TiedHead(Head):
    """Scores tokens by the embedding's own vectors (Press & Wolf, 2017, arXiv:1608.05859).

    Args:
        dims: Sizes.
        embedding: Whose weight it shares.
    """

    def __init__(self, dims: Dims, embedding: Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight


class BiasedHead(TiedHead):
    """Scores tokens by the embedding's own vectors and a bias each (Marian, BART).

    Args:
        dims: Sizes.
        embedding: Whose weight it shares.
    """

    def __init__(self, dims: Dims, embedding: Embedding) -> None:
        super().__init__(dims, embedding)
        self.bias = nn.Parameter(torch.empty(embedding.weight.shape[0]))

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Logits."""
        return product(hidden, self.weight, self.bias)


class LinearHead(Head):
    """A product with weights of its own.

    Args:
        dims: Sizes.
        embedding: Says how many tokens there are.
    """

    def __init__(self, dims: Dims, embedding: Embedding) -> None:
        super().__init__()
        self.weight = Linear(dims.d_model, embedding.weight.shape[0], bias=False).weight


class MaskedHead(TiedHead):
    """BERT's head of masked language modelling: a product, GELU and a norm, then the embedding's vectors and a bias.

    Args:
        dims: Sizes.
        embedding: Whose weight it shares.
        norm: Makes the norm.
        activation: Elementwise function behind the product.
        bias: Whether the product has a bias (ModernBERT: not).
    """

    def __init__(
        self,
        dims: Dims,
        embedding: Embedding,
        norm: NormFactory = LayerNorm,
        activation: Callable[[], Activation] = GELU,
        bias: bool = True,
    ) -> None:
        super().__init__(dims, embedding)
        self.transform = Linear(dims.d_model, dims.d_model, bias=bias)
        self.activation = activation()
        self.norm = norm(dims)
        self.bias = nn.Parameter(torch.empty(embedding.weight.shape[0]))

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Logits."""
        return product(self.norm(self.activation(self.transform(hidden))), self.weight, self.bias)


class SoftCapped(Head):
    """Another head whose logits are bent to stay between minus and plus ``cap`` (Gemma 2, 2024, arXiv:2408.00118).

    Args:
        dims: Sizes.
        embedding: Says how many tokens there are.
        head: Makes the other head.
        cap: Bound of the logits.
    """

    def __init__(
        self,
        dims: Dims,
        embedding: Embedding,
        head: Callable[[Dims, Embedding], Head] = TiedHead,
        cap: float = 30.0,
    ) -> None:
        super().__init__()
        if cap <= 0:
            raise SizeError("head.cap", f"is {cap}, must be above 0")
        self.head = head(dims, embedding)
        self.cap = cap

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The other head's."""
        return self.head.weight

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Logits; the bend in float32 at least, where large ones would be rounded together."""
        logits: Tensor = self.head(hidden)
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return ((exact / self.cap).tanh() * self.cap).to(logits.dtype)
