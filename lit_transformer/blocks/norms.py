"""Normalisation of the residual stream."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks.context import Context
from lit_transformer.blocks.rms import rms_norm
from lit_transformer.blocks.running import RunningState, is_recomputing
from lit_transformer.dims import Dims, SizeError


class Norm(nn.Module):
    """Base of the norms: (B, T, D) -> (B, T, D), or queries and keys (B, H, T, K) -> (B, H, T, K).

    Statistics are taken in float32 at least, also under autocast; the output has the type of the input.

    Args:
        dims: ``d_model`` is the size that is normalised.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.size = dims.d_model

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """Normalises the last dimension; ``context`` knows which tokens are padding."""
        raise NotImplementedError

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Scales start at one, shifts at zero."""
        nn.init.constant_(parameter, 1.0 if name == "weight" else 0.0)


NormFactory = Callable[[Dims], Norm]


class NoNorm(Norm):
    """Leaves everything as it is: what stands behind the last layer of a post-norm stack."""

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        return x


class LayerNorm(Norm):
    """Layer normalisation (Ba et al., 2016, arXiv:1607.06450).

    Args:
        dims: Sizes.
        eps: Added to the variance.
        bias: Whether a shift is learned beside the scale.
    """

    def __init__(self, dims: Dims, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(dims)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.size))
        self.bias = nn.Parameter(torch.zeros(self.size)) if bias else None

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        wide = x.to(torch.promote_types(x.dtype, self.weight.dtype))  # a product's bfloat16 under autocast
        return F.layer_norm(wide, (self.size,), self.weight, self.bias, self.eps).to(x.dtype)


class RMSNorm(Norm):
    """Root mean square normalisation (Zhang & Sennrich, 2019, arXiv:1910.07467).

    Args:
        dims: Sizes.
        eps: Added to the mean square.
    """

    def __init__(self, dims: Dims, eps: float = 1e-6) -> None:
        super().__init__(dims)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.size))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        wide = x.to(torch.promote_types(x.dtype, self.weight.dtype))  # a product's bfloat16 under autocast
        return rms_norm(wide, self.weight, self.eps).to(x.dtype)


class DynamicTanh(Norm):
    """``tanh(a x)`` with a learned steepness in place of a norm (Zhu et al., 2025, arXiv:2503.10622).

    Args:
        dims: Sizes.
        alpha: Where the steepness starts.
    """

    def __init__(self, dims: Dims, alpha: float = 0.5) -> None:
        super().__init__(dims)
        self.start = alpha
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(self.size))
        self.bias = nn.Parameter(torch.zeros(self.size))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        return (torch.tanh(self.alpha * x) * self.weight + self.bias).to(x.dtype)

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """The steepness starts where it was told to."""
        if name == "alpha":
            nn.init.constant_(parameter, self.start)
        else:
            super().initialise_parameter(name, parameter, generator)


class _Sum(torch.autograd.Function):
    """The sum over all processes; what each of them makes of it counts in the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _total(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _total(g)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _sum_of_all(x: Tensor) -> Tensor:
    whole: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return whole


def _total(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total


class BatchNorm(Norm, RunningState):
    """Batch normalisation over tokens (Ioffe & Szegedy, 2015, arXiv:1502.03167), padding left out.

    In training each feature is normalised over all tokens of the batch, later ones included: a language model sees
    the future through the statistics. Processes with different rows take statistics of all of them together, which are
    a single process's (a window of several micro-batches has those of each). In evaluation running statistics stand in.

    Args:
        dims: Sizes.
        eps: Added to the variance.
        momentum: Share of the newest batch in the running statistics.
    """

    mean: Tensor
    variance: Tensor

    processes: int = 1
    """Number of processes that normalise their tokens together: all there are, or 1; training sets it."""

    def __init__(self, dims: Dims, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(dims)
        if not 0 < momentum <= 1:
            raise SizeError("momentum", f"{momentum} is no share; valid: above 0, up to 1")
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(self.size))
        self.bias = nn.Parameter(torch.zeros(self.size))
        self.register_buffer("mean", torch.zeros(self.size, dtype=torch.float32))
        self.register_buffer("variance", torch.ones(self.size, dtype=torch.float32))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        mean, variance = self.mean.to(dtype), self.variance.to(dtype)
        if self.training:
            mean, variance = self._statistics(x.to(dtype), context)
        y = (x.to(dtype) - mean) * (variance + self.eps).rsqrt()
        return (y * self.weight + self.bias).to(x.dtype)

    def _statistics(self, x: Tensor, context: Context | None) -> tuple[Tensor, Tensor]:
        """Mean and variance over the real tokens; the running ones move towards them."""
        real = None if context is None else context.real
        over = tuple(range(x.ndim - 1))
        if real is None and self.processes == 1:
            count = torch.tensor(float(x[..., 0].numel()), device=x.device)
            variance, mean = torch.var_mean(x, over, correction=0)
        else:
            real = x.new_ones(x.shape[0], x.shape[-2], dtype=torch.bool) if real is None else real
            weight = real[:, None, :, None] if x.ndim == 4 else real[..., None]
            weight = weight.expand(*x.shape[:-1], 1).to(x.dtype)
            count, total = self._of_all(weight.sum().view(1), (x * weight).sum(over))
            count = count.detach()  # or running statistics would keep tensors for backward, which a repetition lacks
            mean = total / count.clamp(min=1)
            (squares,) = self._of_all(((x - mean).square() * weight).sum(over))
            variance = squares / count.clamp(min=1)
        if not is_recomputing():
            # Without a branch on the number of tokens, which an accelerator would have to be waited for.
            momentum = torch.where(count > 1, self.momentum, 0.0).to(self.mean.dtype)
            unbiased = variance.detach() * (count / (count - 1).clamp(min=1))
            with torch.no_grad():
                self.mean.lerp_(mean.detach().to(self.mean.dtype), momentum)
                self.variance.lerp_(unbiased.to(self.variance.dtype), momentum)
        return mean, variance

    def _of_all(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """The sums over all processes of vectors of this one."""
        if self.processes == 1:
            return sums
        whole = _sum_of_all(torch.cat(sums))
        return whole.split([len(each) for each in sums])  # type: ignore[no-any-return]

    def initialise_buffers(self) -> None:
        """Mean zero, variance one."""
        self.mean.zero_()
        self.variance.fill_(1.0)
