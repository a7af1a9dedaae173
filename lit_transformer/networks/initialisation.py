"""How weights start: every parameter is drawn from (seed, its own name).

So the start does not depend on the order in which modules are built, on the number of processes, or on the device: a
sharded strategy draws each parameter in full, one at a time, and keeps its part.
"""

import hashlib
import math

import torch
from torch import Tensor, nn

from lit_transformer.blocks.linear import ResidualLinear
from lit_transformer.networks.parts import fill, is_sharded, shape_of


def generator_for(seed: int, name: str) -> torch.Generator:
    """A generator that depends on the seed and the name alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class Initialisation:
    """Base of the schemes: draws matrices; norms and other parts with a rule of their own set themselves."""

    def draw(self, module: nn.Module, name: str, parameter: Tensor, n_layers: int, generator: torch.Generator) -> None:
        """Fills ``parameter``, which is ``module.name``, in place."""
        raise NotImplementedError


class Normal(Initialisation):
    """Normal numbers of one standard deviation; biases zero (GPT).

    Args:
        std: Standard deviation.
    """

    def __init__(self, std: float = 0.02) -> None:
        self.std = std

    def draw(self, module: nn.Module, name: str, parameter: Tensor, n_layers: int, generator: torch.Generator) -> None:
        """See the base class."""
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=self.std, generator=generator)


class DepthScaled(Normal):
    """Products that write into the residual stream start smaller by sqrt(2 x layers) (GPT-2, Radford et al., 2019).

    Args:
        std: Standard deviation of the others.
    """

    def draw(self, module: nn.Module, name: str, parameter: Tensor, n_layers: int, generator: torch.Generator) -> None:
        """See the base class."""
        super().draw(module, name, parameter, n_layers, generator)
        if isinstance(module, ResidualLinear) and module.gain is None and parameter.ndim >= 2:
            parameter.mul_(1 / math.sqrt(2 * n_layers))


class ZeroResidual(Normal):
    """Products that write into the residual stream start at zero: each layer begins as the identity.

    Goyal et al. (2017, arXiv:1706.02677) for norms; for projections Zhang et al. (2019, arXiv:1901.09321).

    Args:
        std: Standard deviation of the others.
    """

    def draw(self, module: nn.Module, name: str, parameter: Tensor, n_layers: int, generator: torch.Generator) -> None:
        """See the base class."""
        if isinstance(module, ResidualLinear):
            nn.init.zeros_(parameter)
        else:
            super().draw(module, name, parameter, n_layers, generator)


@torch.no_grad()
def initialise(network: nn.Module, scheme: Initialisation, seed: int, n_layers: int) -> None:
    """Draws every parameter of the network from the seed and its name; shared ones once, under their first name.

    A module's ``initialise_parameter`` goes before the scheme; its ``initialise_buffers`` sets running statistics and
    counts, which are garbage after a network was built on the meta device.
    """
    seen: set[int] = set()
    for path, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            generator = generator_for(seed, f"{path}.{name}")
            whole = torch.empty(shape_of(parameter), dtype=parameter.dtype) if is_sharded(parameter) else parameter
            rule = getattr(module, "initialise_parameter", None)
            if rule is not None:
                rule(name, whole, generator)
            else:
                scheme.draw(module, name, whole, n_layers, generator)
                gain = getattr(module, "gain", None)
                if gain is not None:
                    whole.mul_(gain)
            if whole is not parameter:
                fill(parameter, whole)
        reset = getattr(module, "initialise_buffers", None)
        if reset is not None:
            reset()
