"""FIRE: a learned function of relative distance as bias."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks.position.base import Bias, Position, at_least_float32, distances
from lit_transformer.dims import Dims, SizeError


class FunctionBias(Bias):
    """``f(psi(distance) / psi(max(L, query position)))``.

    Args:
        position: Knows the function.
        q: Positions of the queries, (B or 1, T).
        k: Positions of the keys, (B or 1, S).
        dtype: Of the result.
    """

    def __init__(self, position: "FIRE", q: Tensor, k: Tensor, dtype: torch.dtype) -> None:
        self.position, self.q, self.k, self.dtype = position, q, k, dtype

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """See the base class."""
        distance = distances(self.q, self.k, rows, columns).abs().to(self.dtype)
        return self.position.function(distance, self.q[:, rows].unsqueeze(-1).to(self.dtype)).movedim(-1, 1)


class FIRE(Position):
    """A small network of the logarithm of the distance, relative to how far the query is (Li et al., 2023).

    arXiv:2310.04418. The quotient stays within [0, 1] for texts of any length. It is the same on both sides.

    Args:
        dims: Sizes.
        width: Hidden width of the network.
        threshold: Queries before this position are treated as if they stood there (learned from this start).
        steepness: Start of c in ``psi(x) = log(c x + 1)``.
    """

    relative = False

    def __init__(self, dims: Dims, width: int = 32, threshold: float = 512.0, steepness: float = 0.1) -> None:
        super().__init__(dims)
        for name, value in (("width", width), ("threshold", threshold), ("steepness", steepness)):
            if value <= 0:
                raise SizeError(f"position.{name}", f"is {value} in FIRE, must be above 0")
        self.width, self.threshold, self.start = width, threshold, steepness
        self.steepness = nn.Parameter(torch.empty(1))  # not 0-dimensional: FSDP2 shares out dimensions
        self.threshold_factor = nn.Parameter(torch.empty(1))
        self.hidden_weight = nn.Parameter(torch.empty(width))
        self.hidden_bias = nn.Parameter(torch.empty(width))
        self.output_weight = nn.Parameter(torch.empty(dims.n_heads, width))
        self.output_bias = nn.Parameter(torch.empty(dims.n_heads))

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """The paper's: c and the threshold at their start, the network as ``nn.Linear`` (uniform by its fan-in)."""
        if name == "steepness":
            nn.init.constant_(parameter, self.start)
        elif name == "threshold_factor":
            nn.init.ones_(parameter)
        else:
            bound = 1.0 if name.startswith("hidden") else self.width**-0.5
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def function(self, distance: Tensor, query: Tensor) -> Tensor:
        """(B or 1, t, s) distances and (B or 1, t, 1) query positions -> (B or 1, t, s, H)."""
        dtype = distance.dtype
        steepness = self.steepness.to(dtype)
        threshold = (self.threshold_factor.to(dtype) * self.threshold).abs()

        def squashed(x: Tensor) -> Tensor:
            return ((steepness * x).abs() + 1).log()

        quotient = squashed(distance) / (squashed(torch.maximum(query, threshold)) + 1e-6)
        hidden = (quotient.unsqueeze(-1) * self.hidden_weight.to(dtype) + self.hidden_bias.to(dtype)).relu()
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden, self.output_weight.to(dtype), self.output_bias.to(dtype))

    def bias(self, q: Tensor, k: Tensor, q_state: Tensor, k_state: Tensor) -> Bias:
        """See the base class."""
        return FunctionBias(self, q_state, k_state, at_least_float32(q))
