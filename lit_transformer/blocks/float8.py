"""Products in eight bits: operands are scaled by their largest number, rounded to float8 and multiplied at once.

Micikevicius et al., 2022, arXiv:2209.05433: four bits of exponent for activations and weights, five for gradients.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lit_transformer.blocks.linear import Linear, ResidualLinear
from lit_transformer.blocks.products import product, product_type

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""What the sizes of a product must be multiples of."""


class Float8Linear(Linear):
    """``Linear`` in float8 while it trains; products whose sizes are no multiples of 16 stay as they were."""

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        rows = x.numel() // x.shape[-1]
        if not self.training or rows % MULTIPLE:
            return product(x, self.weight, self.bias)
        y: Tensor = _Float8.apply(x, self.weight, product_type(x))  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Float8ResidualLinear(Float8Linear, ResidualLinear):
    """A product in float8 whose output is added to the residual stream."""


KINDS = {Linear: Float8Linear, ResidualLinear: Float8ResidualLinear}


def to_float8(part: nn.Module) -> int:
    """Turns the products inside of ``part`` into ``Float8Linear``, in place; names and weights stay. How many."""
    linears = [module for module in part.modules() if isinstance(module, Linear) and type(module) in KINDS]
    found = [each for each in linears if not (each.in_features % MULTIPLE or each.out_features % MULTIPLE)]
    for each in found:
        each.__class__ = KINDS[type(each)]
    return len(found)


def rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A matrix in float8, and the number that it is to be multiplied by (float32)."""
    largest = x.detach().abs().amax().float().clamp(min=1e-12)
    most = torch.finfo(dtype).max
    scale = most / largest
    return (x.float() * scale).clamp(-most, most).to(dtype), scale.reciprocal()


def float8_product(a: Tensor, b: Tensor, kinds: tuple[torch.dtype, torch.dtype], dtype: torch.dtype) -> Tensor:
    """``a @ b.T`` of matrices (M, K) and (N, K), each rounded to its float8; the result is of type ``dtype``."""
    (x, by), (w, times) = rounded(a.contiguous(), kinds[0]), rounded(b.contiguous(), kinds[1])
    y: Tensor = torch._scaled_mm(x, w.t(), scale_a=by, scale_b=times, out_dtype=dtype)
    return y


class _Float8(torch.autograd.Function):
    """All three products of a linear layer in float8."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dtype = dtype
        y = float8_product(x.reshape(-1, x.shape[-1]), weight, (FORWARD, FORWARD), dtype)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        g = dy.reshape(-1, dy.shape[-1])
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = float8_product(g, weight.t(), (BACKWARD, FORWARD), ctx.dtype).to(x.dtype).view(x.shape)
        if ctx.needs_input_grad[1]:
            rows = x.reshape(-1, x.shape[-1])
            dw = float8_product(g.t(), rows.t(), (BACKWARD, FORWARD), ctx.dtype).to(weight.dtype)
        return dx, dw, None
