"""From the states of all tokens of a row to one vector, and from it to the scores of classes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.blocks.linear import Linear
from lit_transformer.blocks.products import product
from lit_transformer.dims import Dims, SizeError


class Pooling(nn.Module):
    """Base of the poolings: (B, T, D) -> (B, D). Padding never counts; a row of padding alone gives zeros.

    Args:
        dims: Sizes.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims

    def forward(
        self, hidden: Float[Tensor, "B T D"], documents: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B D"]:
        """One vector a row.

        Args:
            hidden: States of the tokens.
            documents: -1 is padding; left out: there is none.
        """
        raise NotImplementedError


class FirstToken(Pooling):
    """The state of the first token, which sees the whole row where attention goes both ways (``[CLS]``)."""

    def forward(self, hidden: Tensor, documents: Tensor | None = None) -> Tensor:
        """See the base class."""
        return hidden[:, 0] if documents is None else hidden[:, 0] * (documents[:, :1] >= 0)


class FirstTokenTanh(FirstToken):
    """The state of the first token through a product and tanh: BERT's pooler (Devlin et al., 2019, arXiv:1810.04805).

    Args:
        dims: Sizes.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__(dims)
        self.dense = Linear(dims.d_model, dims.d_model, bias=True)

    def forward(self, hidden: Tensor, documents: Tensor | None = None) -> Tensor:
        """See the base class."""
        return torch.tanh(self.dense(super().forward(hidden, documents)))


class LastToken(Pooling):
    """The state of the last token that is not padding: the only one that sees the whole row of a causal network."""

    def forward(self, hidden: Tensor, documents: Tensor | None = None) -> Tensor:
        """See the base class."""
        if documents is None:
            return hidden[:, -1]
        index = torch.arange(hidden.shape[1], device=hidden.device)
        last = torch.where(documents >= 0, index, -1).amax(-1)
        rows = torch.arange(len(hidden), device=hidden.device)
        return hidden[rows, last.clamp(min=0)] * (last >= 0).unsqueeze(-1)


class Mean(Pooling):
    """The mean of the states of the tokens that are not padding; the sum is taken in float32 at least."""

    def forward(self, hidden: Tensor, documents: Tensor | None = None) -> Tensor:
        """See the base class."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        if documents is None:
            return wide.mean(1).to(hidden.dtype)
        real = (documents >= 0).unsqueeze(-1)
        return (wide.masked_fill(~real, 0.0).sum(1) / real.sum(1).clamp(min=1)).to(hidden.dtype)


class Maximum(Pooling):
    """The largest value of each feature over the tokens that are not padding (Kim, 2014, arXiv:1408.5882)."""

    def forward(self, hidden: Tensor, documents: Tensor | None = None) -> Tensor:
        """See the base class."""
        if documents is None:
            return hidden.amax(1)
        real = documents >= 0
        largest = hidden.masked_fill(~real.unsqueeze(-1), float("-inf")).amax(1)
        return largest.masked_fill(~real.any(1, keepdim=True), 0.0)


class LabelHead(nn.Module):
    """Pooled states to scores of classes: dropout and a product.

    The weight counts as an embedding, not as a matrix: a row a class, as the rows of a head are.

    Args:
        dims: Sizes.
        classes: Number C of classes.
        pooling: Makes the pooling.
        dropout: Share of the pooled vector that is dropped in training.
    """

    def __init__(
        self, dims: Dims, classes: int, pooling: Callable[[Dims], Pooling] = Mean, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if classes < 2:
            raise SizeError("classes", f"is {classes}, must be at least 2")
        if not 0 <= dropout < 1:
            raise SizeError("dropout", f"is {dropout}, must be at least 0 and below 1")
        self.pooling = pooling(dims)
        self.dropout = dropout
        self.weight = nn.Parameter(torch.empty(classes, dims.d_model))
        self.bias = nn.Parameter(torch.empty(classes))

    def forward(
        self, hidden: Float[Tensor, "B T D"], documents: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B C"]:
        """Scores of the classes; ``documents`` -1 is padding."""
        pooled = F.dropout(self.pooling(hidden, documents), self.dropout, self.training)
        return product(pooled, self.weight, self.bias)
