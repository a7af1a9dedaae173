"""Attention as the difference of two."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.cache import LayerCache
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.masks import Mask
from lit_transformer.blocks.norms import Norm, RMSNorm
from lit_transformer.blocks.position import Position
from lit_transformer.dims import Dims, SizeError


class DifferentialAttention(Attention):
    """``(softmax(q1 k1) - a softmax(q2 k2)) v``: what both see alike is noise, and cancels.

    Ye et al., 2024, arXiv:2410.05258.
    Two of the ``n_heads`` heads make one difference, whose values are twice as wide; parameters and cache are those of
    ``Attention``. The factor is learned, ``a = exp(q1 . k1) - exp(q2 . k2) + start``.

    Args:
        dims: Sizes; ``n_heads`` and ``n_kv_heads`` must be even.
        bias: Whether the four products have a bias.
        dropout: Share of the attention weights that is dropped in training.
        start: Where the factor starts. The paper's depends on the layer's number l = 1, 2, ...:
            0.8 - 0.6 exp(-0.3 (l - 1)); it found a constant 0.8 to be as good.
        norm: Norm of each difference.
    """

    def __init__(
        self,
        dims: Dims,
        bias: bool = False,
        dropout: float = 0.0,
        start: float = 0.8,
        norm: Callable[[Dims], Norm] = RMSNorm,
    ) -> None:
        super().__init__(dims, bias, dropout)
        for key, heads in (("n_heads", dims.n_heads), ("n_kv_heads", dims.kv_heads)):
            if heads % 2:
                raise SizeError(f"dims.{key}", f"{heads} is odd, and DifferentialAttention pairs heads: make it even")
        if not 0 <= start < 1:
            raise SizeError("attention.start", f"is {start}, must be at least 0 and below 1")
        self.start = start
        self.norm = norm(replace(dims, d_model=2 * dims.head_size, n_heads=1, n_kv_heads=1, head_dim=None))
        self.query1 = nn.Parameter(torch.empty(dims.head_size))
        self.key1 = nn.Parameter(torch.empty(dims.head_size))
        self.query2 = nn.Parameter(torch.empty(dims.head_size))
        self.key2 = nn.Parameter(torch.empty(dims.head_size))

    def gather(self, x: Tensor, context: Context, cache: LayerCache | None) -> tuple[Tensor, LayerCache | None]:
        """See the class."""
        q, k, v = self._heads(self.query(x)), self._heads(self.key(x)), self._heads(self.value(x))
        q, k, v = context.remember(q, k, v, cache)
        dropout = self.dropout if self.training else 0.0
        # One call for each half of the wide values: kernels (flash above all) want values as wide as keys.
        halves = [context.attend(q, k, half.repeat(1, 2, 1, 1), dropout) for half in v.chunk(2, dim=1)]
        seen, noise = torch.cat(halves, dim=-1).chunk(2, dim=1)
        y = self.norm(seen - self.factor().to(seen.dtype) * noise, context) * (1 - self.start)
        return y.transpose(1, 2).flatten(2), cache

    def factor(self) -> Tensor:
        """How much of the second attention is taken off the first, in float32 at least."""
        dtype = torch.promote_types(self.query1.dtype, torch.float32)
        first = (self.query1.to(dtype) * self.key1.to(dtype)).sum().exp()
        second = (self.query2.to(dtype) * self.key2.to(dtype)).sum().exp()
        return first - second + self.start

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """The factor's four vectors start as in the paper."""
        nn.init.normal_(parameter, std=0.1, generator=generator)

    def check(self, mask: Mask, position: Position) -> None:
        """See the base class."""
        if position.has_values:
            raise SizeError("position", f"{type(position).__name__} acts on values of the head's size, which "
                            "DifferentialAttention doubles; valid: RoPE, ALiBi and others that do not")  # fmt: skip
