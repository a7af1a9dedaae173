"""Matrix products with weights, on every kind of CPU.

Three things are decided here, none of which changes what a network computes:

* A CPU without bfloat16 (or float16) matrix units multiplies such matrices one number at a time, fifty times slower
  than float32. There the operands are rounded to the low precision as autocast asks, multiplied in float32, and the
  result is rounded again: at least as accurate as the native product.
* Several products of one input (query, key, value; gate, up) share one conversion of that input.
* A product of an elementwise function keeps the function's inputs for backward, not its output too: the output is
  computed again. That is the largest tensor of a layer.

Elsewhere (other devices, sharded weights, under a compiler) these functions are ``F.linear``.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Weights = tuple[Tensor, Tensor | None]
"""A weight (N, D) and, where there is one, a bias (N)."""


@cache
def multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU has a fast matrix product of this type; unknown counts as yes, which leaves it to PyTorch."""
    if dtype not in (torch.bfloat16, torch.float16) or not torch.backends.mkldnn.is_available():
        return True
    name = "_is_mkldnn_bf16_supported" if dtype == torch.bfloat16 else "_is_mkldnn_fp16_supported"
    supported = getattr(torch.ops.mkldnn, name, None)
    return supported is None or bool(supported())


def product_type(x: Tensor) -> torch.dtype:
    """The type that a product of ``x`` is computed in: autocast's, where it is on."""
    kind = x.device.type
    if x.is_floating_point() and x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def needs_float32(x: Tensor) -> bool:
    """Whether products of ``x`` are taken in float32 because the CPU has none in the type that is asked for."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not multiplies(product_type(x))


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``: (..., D) by (N, D) -> (..., N)."""
    if needs_float32(x) and _plain(weight):
        y: Tensor = _Rounded.apply(product_type(x), x, weight, bias)[0]  # type: ignore[no-untyped-call]
        return y
    return F.linear(x, weight, bias)


def products(x: Tensor, weights: Sequence[Weights]) -> tuple[Tensor, ...]:
    """Several products of one ``x``: (..., D) -> (..., N1), (..., N2), ..."""
    if needs_float32(x) and all(_plain(weight) for weight, _ in weights):
        operands = (each for pair in weights for each in pair)
        return tuple(_Rounded.apply(product_type(x), x, *operands))  # type: ignore[no-untyped-call]
    dtype = product_type(x)
    x = x if x.dtype == dtype else x.to(dtype)
    return tuple(F.linear(x, weight, bias) for weight, bias in weights)


def product_of(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """``product(function(*inputs), weight, bias)`` for an elementwise function, whose output is not kept for backward.

    Args:
        function: Elementwise, the same at every call (no dropout). One with parameters or hooks is kept as it is.
        inputs: What it takes, (..., D) each.
        weight: (N, D).
        bias: (N) or none.
    """
    x = inputs[0]
    plain = x.device.type == "cpu" and not torch.compiler.is_compiling() and _plain(weight) and torch.is_grad_enabled()
    if not plain or not _stateless(function):
        return product(function(*inputs), weight, bias)
    y: Tensor = _ProductOf.apply(  # type: ignore[no-untyped-call]
        function, product_type(x), weight, bias, *inputs
    )
    return y


def _plain(weight: Tensor) -> bool:
    return type(weight) in (nn.Parameter, Tensor)  # a DTensor brings products of its own


def _stateless(function: Callable[..., Tensor]) -> bool:
    parts = function.args if isinstance(function, partial) else (function,)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    return not any(
        next(module.parameters(), None) is not None or module._forward_hooks or module._forward_pre_hooks
        for module in modules
    )


def _operand(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` as a matrix (rows, D), rounded to ``dtype``, in the type that the product is taken in."""
    x = x.reshape(-1, x.shape[-1]).to(dtype)
    return x if multiplies(dtype) else x.float()


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The product of an operand with a weight, in float32 or natively, as a matrix of type ``dtype``."""
    w = _operand(weight, dtype)
    y = torch.mm(x, w.t()) if bias is None else torch.addmm(bias.to(x.dtype), x, w.t())
    return y.to(dtype)


class _Rounded(torch.autograd.Function):
    """Products of one input in a low precision that the CPU has no products in."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, x: Tensor, *pairs: Tensor | None) -> tuple[Tensor, ...]:
        rounded = x.to(dtype)
        ctx.save_for_backward(rounded, *pairs)
        ctx.dtype, ctx.x_dtype = dtype, x.dtype
        with torch.autocast("cpu", enabled=False):
            operand = _operand(rounded, dtype)
            return tuple(
                _multiply(operand, weight, bias, dtype).view(*x.shape[:-1], -1)
                for weight, bias in zip(pairs[::2], pairs[1::2], strict=True)
                if weight is not None
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Any, ...]:
        rounded, *pairs = ctx.saved_tensors
        x = _operand(rounded, ctx.dtype)
        dx: Tensor | None = None
        gradients: list[Tensor | None] = []
        for i, dy in enumerate(dys):
            weight, bias = pairs[2 * i], pairs[2 * i + 1]
            operand = _operand(dy, ctx.dtype)
            if ctx.needs_input_grad[1]:
                w = _operand(weight, ctx.dtype)
                dx = torch.mm(operand, w) if dx is None else dx.addmm_(operand, w)
            need_w, need_b = ctx.needs_input_grad[2 + 2 * i : 4 + 2 * i]
            gradients.append(torch.mm(operand.t(), x).to(weight.dtype) if need_w else None)
            gradients.append(operand.sum(0).to(bias.dtype) if need_b else None)
        return None, None if dx is None else dx.to(ctx.x_dtype).view(rounded.shape), *gradients


class _ProductOf(torch.autograd.Function):
    """The product of an elementwise function, recomputed in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        dtype: torch.dtype,
        weight: Tensor,
        bias: Tensor | None,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, bias, *inputs)
        ctx.function, ctx.dtype = function, dtype
        with torch.autocast("cpu", enabled=False):
            hidden = function(*inputs)
            return _multiply(_operand(hidden, dtype), weight, bias, dtype).view(*hidden.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        weight, bias, *inputs = ctx.saved_tensors
        _, _, need_w, need_b, *need_inputs = ctx.needs_input_grad
        operand = _operand(dy, ctx.dtype)
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_(need) for x, need in zip(inputs, need_inputs, strict=True)]
            hidden = ctx.function(*leaves)
        dw = torch.mm(operand.t(), _operand(hidden.detach(), ctx.dtype)).to(weight.dtype) if need_w else None
        db = operand.sum(0).to(bias.dtype) if need_b else None
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found: list[Tensor] = []
        if wanted:
            dh = torch.mm(operand, _operand(weight, ctx.dtype)).to(hidden.dtype).view(hidden.shape)
            found = list(torch.autograd.grad(hidden, wanted, dh))
        return None, None, dw, db, *(found.pop(0) if leaf.requires_grad else None for leaf in leaves)
