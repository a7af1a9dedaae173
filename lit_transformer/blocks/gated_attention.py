"""Attention whose heads can be closed."""

from collections.abc import Callable

from torch import Tensor

from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.cache import LayerCache
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.linear import Linear
from lit_transformer.blocks.norms import Norm
from lit_transformer.dims import Dims


class GatedAttention(Attention):
    """What the heads found is multiplied by a sigmoid gate that the token itself opens (Qwen3-Next).

    A head with nothing to say can be silent, so that no token has to serve as a sink (Qiu et al., 2025,
    arXiv:2505.06708).

    Args:
        dims: Sizes.
        bias: Whether the five products have a bias.
        dropout: Share of the attention weights that is dropped in training.
        qk_norm: Norm of each query and key over the head size; none if left out.
        soft_cap: Scores are bent to stay between minus and plus this; left out: not.
    """

    score_products = ("query", "key", "gate")

    def __init__(
        self,
        dims: Dims,
        bias: bool = False,
        dropout: float = 0.0,
        qk_norm: Callable[[Dims], Norm] | None = None,
        soft_cap: float | None = None,
    ) -> None:
        super().__init__(dims, bias, dropout, qk_norm, soft_cap)
        self.gate = Linear(dims.d_model, dims.n_heads * dims.head_size, bias=bias)

    def gather(self, x: Tensor, context: Context, cache: LayerCache | None) -> tuple[Tensor, LayerCache | None]:
        """See the class."""
        y, cache = super().gather(x, context, cache)
        return y * self.gate(x).sigmoid(), cache
