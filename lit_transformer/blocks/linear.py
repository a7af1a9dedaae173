"""The matrix product with weights, and the marker of the ones that write into the residual stream."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.products import product, product_of, products


class Linear(nn.Linear):
    """``x @ W.T + b``; initialised by the network's ``Initialisation``, from the seed and its own name."""

    gain: float | None = None
    """Factor of the weights' start that the residual order asks for; None: the scheme decides alone."""

    active_share: float = 1.0
    """Share of the weights that one token meets: less than all in a mixture of experts; for counting FLOPs."""

    def reset_parameters(self) -> None:
        """Nothing: see ``networks.initialisation``; drawing numbers here would be thrown away."""

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B N"]:
        """The product."""
        return product(x, self.weight, self.bias)


class ResidualLinear(Linear):
    """A product whose output is added to the residual stream; schemes scale its start by depth."""


def is_plain(module: nn.Module) -> bool:
    """Whether calling this module is its product and nothing else: no subclass, no hook, nothing wrapped around it."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return type(module) in (Linear, ResidualLinear) and not hooked


def project(x: Float[Tensor, "*B D"], *linears: nn.Module) -> tuple[Tensor, ...]:
    """``[linear(x) for linear in linears]``, with one conversion of ``x`` for all of them under autocast."""
    if all(is_plain(each) for each in linears):
        return products(x, [(each.weight, each.bias) for each in linears])  # type: ignore[misc]
    return tuple(each(x) for each in linears)


def project_of(function: Callable[..., Tensor], inputs: Sequence[Tensor], linear: nn.Module) -> Tensor:
    """``linear(function(*inputs))`` for an elementwise function; its output is computed again in backward, not kept."""
    if is_plain(linear):
        return product_of(function, inputs, linear.weight, linear.bias)  # type: ignore[arg-type]
    y: Tensor = linear(function(*inputs))
    return y
