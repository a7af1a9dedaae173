"""One layer: attention, cross-attention where there is a memory, feed-forward, in a residual order."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_transformer.blocks.attention import Attention, BaseAttention
from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.cache import LayerCache
from lit_transformer.blocks.context import Context
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
        feed_forward: Callable[[Dims], FeedForward] = SwiGLU,
        norm: Callable[[Dims], Norm] = RMSNorm,
        residual: Callable[[Dims, NormFactory, int, float], Residual] = PreNorm,
        dropout: float = 0.0,
        position: Callable[[Dims], Position] | None = None,
        mask: Mask | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention(dims)
        self.feed_forward = feed_forward(dims)
        self.residual = residual(dims, norm, 2, dropout)
        self.residual.set_gains((self.attention, self.feed_forward))
        self.own_position = position(dims) if position else None
        self.own_mask = mask
        self.norm_factory = norm

    def forward(
        self, x: Tensor, context: Context, cache: LayerCache | None = None
    ) -> tuple[Tensor, LayerCache | None, Auxiliary]:
        """(B, T, D) -> (B, T, D), the advanced cache, auxiliary losses and statistics."""
        x, (cache, auxiliary) = self.residual(
            x,
            (
                lambda h: self.attention(h, context, cache),
                lambda h: self.feed_forward(h, context),
            ),
            context,
        )
        return x, cache, auxiliary

    def check(self, mask: Mask, position: Position) -> None:
        """Called when the network is built, with what the stack shares.

        Raises:
            SizeError: A part cannot work with the mask or the position that it would get.
        """
        self.attention.check(self.own_mask or mask, self.own_position or position)

    def final_norm(self, dims: Dims) -> Norm:
        """What this layer's order wants behind the last layer."""
        return self.residual.final_norm(dims, self.norm_factory)

    def new_cache(self, batch: int, max_len: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Room for ``max_len`` tokens."""
        return self.attention.new_cache(batch, max_len, device, dtype)
