"""Root mean square normalisation as one step of the graph: PyTorch has it in pieces on the CPU that keep tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension."""
    ours = x.device.type == "cpu" and x.dtype == weight.dtype and x.element_size() >= 4
    if not ours or type(weight) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling():
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    if not torch.is_grad_enabled():
        return x.mul(_inverse(x, eps)).mul_(weight)
    y: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return y


def _inverse(x: Tensor, eps: float) -> Tensor:
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse: Tensor = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return inverse


class _RMSNorm(torch.autograd.Function):
    """Keeps its input and one number a token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = _inverse(x, eps)
        ctx.save_for_backward(x, weight, inverse)
        y: Tensor = (x * inverse).mul_(weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        shape = dy.shape  # unpacking what was saved a second time is refused under recompute
        x, weight, inverse = (each.reshape(-1, each.shape[-1]) for each in ctx.saved_tensors)
        dy = dy.reshape(x.shape)
        product = dy * x
        dw = (inverse.mT @ product).view(-1)
        along = (product @ weight.mT) * inverse.pow(3) / x.shape[-1]  # the part of the gradient along x itself
        dx = torch.mul(dy, weight, out=product).mul_(inverse).addcmul_(x, along, value=-1)
        return dx.view(shape), dw, None
