"""What every token does alone."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.linear import Linear, ResidualLinear, project, project_of
from lit_transformer.dims import Dims


class Activation(nn.Module):
    """Base of the activation functions: elementwise, no parameters."""

    cheap = True
    """Whether backward computes it again on the CPU, rather than keep its output, a layer's largest tensor."""


class GELU(Activation):
    """x times the normal distribution function of x (Hendrycks & Gimpel, 2016, arXiv:1606.08415).

    Args:
        approximate: "none" is exact, "tanh" is GPT-2's.
    """

    cheap = False  # again, it was measured at 3 % of a training step

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.gelu(x, approximate=self.approximate)


class ReLU(Activation):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.relu(x)


class SquaredReLU(Activation):
    """max(x, 0)^2 (So et al., 2021, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.relu(x).square()


class SiLU(Activation):
    """x times sigmoid of x, also called swish (Ramachandran et al., 2017, arXiv:1710.05941)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.silu(x)


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.sigmoid(x)


class Tanh(Activation):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.tanh(x)


class Identity(Activation):
    """No activation at all."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x


class FeedForward(nn.Module):
    """Base of the feed-forwards: (B, T, D) -> (B, T, D), and what is to be reported beside it.

    Where all weights sit in ``Linear`` products, a feed-forward can also be the expert of a ``MixtureOfExperts``.

    Args:
        dims: Sizes.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Float[Tensor, "B T D"], context: Context) -> tuple[Float[Tensor, "B T D"], Auxiliary]:
        """Maps each token; ``context`` knows which of them are padding."""
        raise NotImplementedError


class MLP(FeedForward):
    """Two products with an activation between (Vaswani et al., 2017).

    Args:
        dims: Sizes; the hidden width is ``d_ff`` (4 D if left out).
        activation: Elementwise function.
        bias: Whether the products have a bias.
    """

    def __init__(self, dims: Dims, activation: Callable[[], Activation] = GELU, bias: bool = False) -> None:
        super().__init__(dims)
        self.up = Linear(dims.d_model, dims.ff_size, bias=bias)
        self.activation = activation()
        self.down = ResidualLinear(dims.ff_size, dims.d_model, bias=bias)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Auxiliary]:
        """See the base class."""
        hidden = self.up(x)
        if self.activation.cheap:
            return project_of(self.activation, (hidden,), self.down), Auxiliary.none()
        return self.down(self.activation(hidden)), Auxiliary.none()


class Gated(FeedForward):
    """A gate decides which hidden units speak (Shazeer, 2020, arXiv:2002.05202).

    With ``d_ff`` left out the hidden width is 8/3 D, rounded up to a multiple of 8: an MLP has as many parameters.

    Args:
        dims: Sizes.
        activation: Function of the gate.
        bias: Whether the products have a bias.
    """

    def __init__(self, dims: Dims, activation: Callable[[], Activation] = SiLU, bias: bool = False) -> None:
        super().__init__(dims)
        width = dims.d_ff or -(-(8 * dims.d_model // 3) // 8) * 8
        self.gate = Linear(dims.d_model, width, bias=bias)
        self.up = Linear(dims.d_model, width, bias=bias)
        self.activation = activation()
        self.down = ResidualLinear(width, dims.d_model, bias=bias)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Auxiliary]:
        """See the base class."""
        inputs = project(x, self.gate, self.up)
        if self.activation.cheap:
            return project_of(partial(gated, self.activation), inputs, self.down), Auxiliary.none()
        return self.down(gated(self.activation, *inputs)), Auxiliary.none()


def gated(activation: Activation, gate: Tensor, up: Tensor) -> Tensor:
    """The hidden units that the gate lets through."""
    return activation(gate) * up  # type: ignore[no-any-return]


class GLU(Gated):
    """Gated by a sigmoid: the original (Dauphin et al., 2017, arXiv:1612.08083).

    Args:
        dims: Sizes.
        bias: Whether the products have a bias.
    """

    def __init__(self, dims: Dims, bias: bool = False) -> None:
        super().__init__(dims, Sigmoid, bias)


class Bilinear(Gated):
    """Gated by the gate's product itself, without any activation (Shazeer, 2020).

    Args:
        dims: Sizes.
        bias: Whether the products have a bias.
    """

    def __init__(self, dims: Dims, bias: bool = False) -> None:
        super().__init__(dims, Identity, bias)


class ReGLU(Gated):
    """Gated by ReLU (Shazeer, 2020).

    Args:
        dims: Sizes.
        bias: Whether the products have a bias.
    """

    def __init__(self, dims: Dims, bias: bool = False) -> None:
        super().__init__(dims, ReLU, bias)


class SwiGLU(Gated):
    """Gated by SiLU: Llama's feed-forward.

    Args:
        dims: Sizes.
        bias: Whether the products have a bias.
    """

    def __init__(self, dims: Dims, bias: bool = False) -> None:
        super().__init__(dims, SiLU, bias)


class GEGLU(Gated):
    """Gated by GELU: T5 v1.1's and Gemma's feed-forward.

    Args:
        dims: Sizes.
        bias: Whether the products have a bias.
    """

    def __init__(self, dims: Dims, bias: bool = False) -> None:
        super().__init__(dims, GELU, bias)
