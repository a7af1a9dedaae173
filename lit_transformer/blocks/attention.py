"""One attention for self and cross, multi-head, multi-query and grouped-query."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.cache import LayerCache
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.linear import Linear, ResidualLinear, project
from lit_transformer.blocks.masks import Mask
from lit_transformer.blocks.norms import Norm
from lit_transformer.blocks.position import Position
from lit_transformer.dims import Dims, SizeError


class BaseAttention(nn.Module):
    """Base of what moves information between tokens: (B, T, D) -> (B, T, D).

    Args:
        dims: Sizes.
    """

    score_products: tuple[str, ...] = ()
    """Names of the products that only decide who looks at whom; DeepNorm leaves their start alone."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> tuple[Float[Tensor, "B T D"], Any]:
        """Every token gathers from the tokens it may see; returns the cache with the new tokens in it."""
        raise NotImplementedError

    def new_cache(self, batch: int, max_len: int, device: torch.device, dtype: torch.dtype) -> Any:
        """Room for ``max_len`` tokens."""
        raise NotImplementedError

    def check(self, mask: Mask, position: Position) -> None:
        """Called when the network is built.

        Raises:
            SizeError: This attention cannot work with the mask or the position.
        """

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, heads * K) -> (B, heads, T, K); the number of heads is left open, as tensor parallelism shards it."""
        return x.view(*x.shape[:-1], -1, self.dims.head_size).transpose(1, 2)


class Attention(BaseAttention):
    """Scaled dot-product attention over heads (Vaswani et al., 2017; grouped heads: Ainslie et al., 2023).

    ``dims.n_kv_heads`` makes it multi-head (left out), multi-query (1) or grouped-query (between). Mask, position and
    kernel come with the context.

    Args:
        dims: Sizes.
        bias: Whether the four products have a bias.
        dropout: Share of the attention weights that is dropped in training.
        qk_norm: Norm of each query and key over the head size (Henry et al., 2020, arXiv:2010.04245); none if left out.
        soft_cap: Scores are bent to stay between minus and plus this (Gemma 2, 2024, arXiv:2408.00118); left out: not.
        output_bias: Whether the product that writes into the stream has a bias; left out: as the others (Qwen2: not).
    """

    score_products: tuple[str, ...] = ("query", "key")

    devices: int = 1
    """Number of devices that the heads are spread over; a tensor-parallel plan sets it."""

    def __init__(
        self,
        dims: Dims,
        bias: bool = False,
        dropout: float = 0.0,
        qk_norm: Callable[[Dims], Norm] | None = None,
        soft_cap: float | None = None,
        output_bias: bool | None = None,
    ) -> None:
        super().__init__(dims)
        if soft_cap is not None and soft_cap <= 0:
            raise SizeError("attention.soft_cap", f"is {soft_cap}, must be above 0 (or left out)")
        self.dropout = dropout
        self.soft_cap = soft_cap
        self.query = Linear(dims.d_model, dims.n_heads * dims.head_size, bias=bias)
        self.key = Linear(dims.d_model, dims.kv_heads * dims.head_size, bias=bias)
        self.value = Linear(dims.d_model, dims.kv_heads * dims.head_size, bias=bias)
        writes_bias = bias if output_bias is None else output_bias
        self.output = ResidualLinear(dims.n_heads * dims.head_size, dims.d_model, bias=writes_bias)
        head = replace(dims, d_model=dims.head_size, n_heads=1, n_kv_heads=1, head_dim=dims.head_size)
        self.query_norm = qk_norm(head) if qk_norm else None
        self.key_norm = qk_norm(head) if qk_norm else None

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> tuple[Float[Tensor, "B T D"], Any]:
        """Every token gathers from the tokens it may see; returns the cache with the new keys and values in it."""
        y, cache = self.gather(x, context, cache)
        return self.output(y), cache

    def gather(self, x: Float[Tensor, "B T D"], context: Context, cache: Any) -> tuple[Float[Tensor, "B T HK"], Any]:
        """What the heads found, side by side."""
        q, k, v = map(self._heads, project(x, self.query, self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q, context), self.key_norm(k, context)
        q, k, v = context.remember(q, k, v, cache)
        y = context.attend(q, k, v, self.dropout if self.training else 0.0, self.soft_cap)
        return y.transpose(1, 2).flatten(2), cache

    def new_cache(self, batch: int, max_len: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Room for ``max_len`` keys and values."""
        shape = (batch, self.dims.kv_heads // self.devices, max_len, self.dims.head_size)
        return LayerCache(
            torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype)
        )
