"""Attention compiled for the mask, bias and cap at hand; for accelerators."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.context import Visibility
from lit_transformer.blocks.kernels import Kernel
from lit_transformer.blocks.position import Bias
from lit_transformer.dims import SizeError


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled once per process; each combination of shapes and modifications is built at its first call."""
    return torch.compile(function, dynamic=False)


class FlexKernel(Kernel):
    """PyTorch's flex attention (Dong et al., 2024, arXiv:2412.05496): one fused kernel for any mask and score.

    Blocks of 128 x 128 that the mask hides are skipped; bias and cap are compiled in. For accelerators. On the CPU it
    is uncompiled, and with gradients, which PyTorch has none of there, written out with the whole T x S matrix: to be
    tested, not to be trained with. It has no dropout of attention weights.
    """

    takes_dropout = False

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None = None, dropout: float = 0.0,
        soft_cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """See the base class."""
        from torch.nn.attention.flex_attention import flex_attention

        if dropout:
            raise SizeError("attention.dropout", f"is {dropout}, and FlexKernel has none: set it to 0 (dropout of the "
                            "layer's outputs remains), or choose SdpaKernel")  # fmt: skip
        change = score_mod(bias, soft_cap)
        if q.device.type == "cpu" and torch.is_grad_enabled():
            return written_out(q, k, v, change, visible)
        plain: Any = flex_attention
        attention = plain if q.device.type == "cpu" else compiled(plain)
        grouped = q.shape[1] != k.shape[1]
        y: Tensor = attention(q, k, v, change, visible.block_mask, enable_gqa=grouped)
        return y


def score_mod(bias: Bias | None, soft_cap: float | None) -> Callable[..., Tensor] | None:
    """What happens to one score under ``vmap``; None: nothing."""
    if bias is None and soft_cap is None:
        return None
    if bias is not None and type(bias).at is Bias.at:
        bias._table()  # it cannot be made and kept while flex attention traces

    def modified(score: Tensor, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        if soft_cap is not None:
            score = (score / soft_cap).tanh() * soft_cap
        return score if bias is None else score + bias.at(batch, head, q, k)

    return modified


def written_out(q: Tensor, k: Tensor, v: Tensor, change: Callable[..., Tensor] | None, visible: Visibility) -> Tensor:
    """What flex attention computes, of single scores and single indices too, with the whole matrix in memory."""
    groups = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(groups, dim=1).mT * q.shape[-1] ** -0.5
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    index = [torch.arange(size, device=q.device) for size in scores.shape]
    if change is not None:
        scores = over_pairs(change, (0,))(scores, *index)
    seen = over_pairs(visible.mask_mod, ())(*index)
    blind = ~seen.any(-1, keepdim=True)
    weights = scores.masked_fill(~seen & ~blind, -torch.inf).softmax(-1).masked_fill(blind, 0.0)
    y: Tensor = weights.to(v.dtype) @ v.repeat_interleave(groups, dim=1)
    return y


def over_pairs(function: Callable[..., Tensor], first: tuple[int, ...]) -> Callable[..., Tensor]:
    """``function(*first, batch, head, q, k)`` of single indices, over all of them: (B, H, T, S)."""
    for place in (3, 2, 1, 0):
        dims = [None] * 4
        dims[place] = 0  # type: ignore[call-overload]
        function = torch.vmap(function, in_dims=(*first, *dims))
    return function
