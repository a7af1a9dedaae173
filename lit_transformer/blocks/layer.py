"""One layer: attention, cross-attention where there is a memory, feed-forward, in a residual order."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_transformer.blocks.attention import Attention, BaseAttention
from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.cache import CrossLayerCache, MemoryCache
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.cross_attention import CrossAttention
from lit_transformer.blocks.feed_forward import FeedForward, SwiGLU
from lit_transformer.blocks.masks import Mask
from lit_transformer.blocks.norms import Norm, NormFactory, RMSNorm
from lit_transformer.blocks.position import Position
from lit_transformer.blocks.residual import PreNorm, Residual
from lit_transformer.dims import Dims


class Layer(nn.Module):
    """A Transformer layer put together from its parts.

    Args:
        dims: Sizes.
        attention: Makes the attention.
        cross_attention: Makes the attention to an encoder's states, in the layers of a decoder that has an encoder.
        feed_forward: Makes the feed-forward.
        norm: Makes each norm.
        residual: Makes the residual order.
        dropout: Share of each sublayer's output that is dropped in training.
        position: A position of this layer's own, where it is not the stack's.
        mask: A mask of this layer's own, where it is not the stack's.
    """

    def __init__(
        self,
        dims: Dims,
        attention: Callable[[Dims], BaseAttention] = Attention,
        cross_attention: Callable[[Dims], CrossAttention] = CrossAttention,
        feed_forward: Callable[[Dims], FeedForward] = SwiGLU,
        norm: Callable[[Dims], Norm] = RMSNorm,
        residual: Callable[[Dims, NormFactory, int, float], Residual] = PreNorm,
        dropout: float = 0.0,
        position: Callable[[Dims], Position] | None = None,
        mask: Mask | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention(dims)
        self.cross_attention = None if dims.memory is None else cross_attention(dims)
        self.feed_forward = feed_forward(dims)
        sublayers = [each for each in (self.attention, self.cross_attention, self.feed_forward) if each is not None]
        self.residual = residual(dims, norm, len(sublayers), dropout)
        self.residual.set_gains(sublayers)
        self.own_position = position(dims) if position else None
        self.own_mask = mask
        self.norm_factory = norm

    def forward(self, x: Tensor, context: Context, cache: Any = None) -> tuple[Tensor, Any, Auxiliary]:
        """(B, T, D) -> (B, T, D), the advanced cache, auxiliary losses and statistics."""
        if self.cross_attention is not None:
            return self._forward_with_memory(self.cross_attention, x, context, cache)
        x, (cache, auxiliary) = self.residual(
            x,
            (
                lambda h: self.attention(h, context, cache),
                lambda h: self.feed_forward(h, context),
            ),
            context,
        )
        return x, cache, auxiliary

    def _forward_with_memory(
        self, cross_attention: CrossAttention, x: Tensor, context: Context, cache: CrossLayerCache | None
    ) -> tuple[Tensor, CrossLayerCache | None, Auxiliary]:
        own, memory = (None, None) if cache is None else (cache.own, cache.memory)
        x, (own, memory, auxiliary) = self.residual(
            x,
            (
                lambda h: self.attention(h, context, own),
                lambda h: cross_attention(h, context, memory),
                lambda h: self.feed_forward(h, context),
            ),
            context,
        )
        return x, None if memory is None else CrossLayerCache(own, memory), auxiliary

    def check(self, mask: Mask, position: Position) -> None:
        """Called when the network is built, with what the stack shares.

        Raises:
            SizeError: A part cannot work with the mask or the position that it would get.
        """
        self.attention.check(self.own_mask or mask, self.own_position or position)

    def final_norm(self, dims: Dims) -> Norm:
        """What this layer's order wants behind the last layer."""
        return self.residual.final_norm(dims, self.norm_factory)

    def new_cache(self, batch: int, max_len: int, device: torch.device, dtype: torch.dtype) -> Any:
        """Room for ``max_len`` tokens."""
        own = self.attention.new_cache(batch, max_len, device, dtype)
        return own if self.cross_attention is None else CrossLayerCache(own, MemoryCache())
