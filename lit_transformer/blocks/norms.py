"""Normalisation of the residual stream."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.dims import Dims


class Norm(nn.Module):
    """Base of the norms: (B, T, D) -> (B, T, D). Statistics are taken in float32, also under autocast.

    Args:
        dims: ``d_model`` is the size that is normalised.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.size = dims.d_model

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last dimension."""
        raise NotImplementedError

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Scales start at one, shifts at zero."""
        nn.init.constant_(parameter, 1.0 if name == "weight" else 0.0)


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

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return F.layer_norm(x, (self.size,), self.weight, self.bias, self.eps)


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

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return F.rms_norm(x, (self.size,), self.weight, self.eps)
