"""Attention of a decoder to an encoder's states."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.cache import MemoryCache
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.linear import Linear, project
from lit_transformer.blocks.masks import Mask
from lit_transformer.blocks.norms import Norm
from lit_transformer.blocks.position import Position
from lit_transformer.dims import Dims, SizeError


class CrossAttention(Attention):
    """Queries of the decoder's tokens, keys and values of the encoder's states (Vaswani et al., 2017).

    Every token sees all states of its own source. No position acts here: the states carry it.

    Args:
        dims: Sizes; ``memory`` is the width of the states.
        bias: Whether the four products have a bias.
        dropout: Share of the attention weights that is dropped in training.
        qk_norm: Norm of each query and key over the head size; none if left out.
        soft_cap: Scores are bent to stay between minus and plus this; left out: not.
        output_bias: Whether the product that writes into the stream has a bias; left out: as the others.
    """

    def __init__(
        self,
        dims: Dims,
        bias: bool = False,
        dropout: float = 0.0,
        qk_norm: Callable[[Dims], Norm] | None = None,
        soft_cap: float | None = None,
        output_bias: bool | None = None,
    ) -> None:
        super().__init__(dims, bias, dropout, qk_norm, soft_cap, output_bias)
        width = dims.d_model if dims.memory is None else dims.memory
        if width != dims.d_model:
            self.key = Linear(width, dims.kv_heads * dims.head_size, bias=bias)
            self.value = Linear(width, dims.kv_heads * dims.head_size, bias=bias)

    def check(self, mask: Mask, position: Position) -> None:
        """Refuses to stand where tokens look at each other.

        Raises:
            SizeError: Always: a layer asks this of its self-attention only.
        """
        raise SizeError("layer.attention", "CrossAttention looks at an encoder's states; name it as "
                        "layer.cross_attention, and Attention here")  # fmt: skip

    def gather(self, x: Float[Tensor, "B T D"], context: Context, cache: Any) -> tuple[Float[Tensor, "B T HK"], Any]:
        """What the heads found, side by side; the cache with the states' keys and values in it."""
        q = self._heads(self.query(x))
        if self.query_norm is not None:
            q = self.query_norm(q, context)
        if cache is not None and cache.keys is not None and cache.values is not None:
            k, v = cache.keys, cache.values
        else:
            assert context.memory is not None
            k, v = map(self._heads, project(context.memory, self.key, self.value))
            if self.key_norm is not None:
                k = self.key_norm(k, context)
            cache = cache and MemoryCache(k, v)
        y = context.attend_to_memory(q, k, v, self.dropout if self.training else 0.0, self.soft_cap)
        return y.transpose(1, 2).flatten(2), cache
