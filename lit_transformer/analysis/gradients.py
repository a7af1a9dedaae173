"""Which links mattered for what the network said: weights times their gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.analysis.record import Call
from lit_transformer.blocks.attention import BaseAttention
from lit_transformer.blocks.context import Context, Visibility
from lit_transformer.blocks.position import Bias
from lit_transformer.networks.base import Network, Output

Said = Callable[[Output], Tensor]
"""A number made of what the network returned: a log-probability, a loss."""


class _Explicit(Context):
    """A context that computes attention from weights that gradients can be asked of."""

    into: list[Tensor]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, soft_cap: float | None = None) -> Tensor:
        bias = self.position.bias(q, k, self.q_state, self.k_state)
        weights, y = self._gather(q, k, v, self.visible, bias, soft_cap)
        return y + self.position.values(weights, self.q_state, self.k_state) if self.position.has_values else y

    def attend_to_memory(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, soft_cap: float | None = None
    ) -> Tensor:
        assert self.memory_visible is not None
        return self._gather(q, k, v, self.memory_visible, None, soft_cap)[1]

    def _gather(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None, soft_cap: float | None
    ) -> tuple[Tensor, Tensor]:
        weights = Call(q, k, v, visible, bias, soft_cap).weights()
        if not weights.requires_grad:
            weights.requires_grad_()
        self.into.append(weights)
        return weights, weights.to(v.dtype) @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)


@contextmanager
def _explicit_weights(network: Network) -> Iterator[dict[str, list[Tensor]]]:
    found: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            x, context, *rest = given
            explicit = _Explicit(**{each.name: getattr(context, each.name) for each in fields(Context)})
            explicit.into = found.setdefault(name, [])
            return (x, explicit, *rest)

        return hook

    handles = [
        module.register_forward_pre_hook(watch(name))
        for name, module in network.named_modules()
        if isinstance(module, BaseAttention)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def gradient_weighted(network: Network, inputs: dict[str, Any], said: Said) -> dict[str, Float[Tensor, "B H T S"]]:
    """Each attention weight times the gradient of what the network said, by path of the attention.

    To first order, what the number would lose without the link (Barkan et al., 2021, "Grad-SAM"; Chefer et al., 2021,
    arXiv:2103.15679). Memory is that of all weights of all layers.

    Args:
        network: The network, in evaluation mode; its parameters get no gradient.
        inputs: What it is called with.
        said: The number that gradients are taken of.
    """
    with torch.enable_grad(), _explicit_weights(network) as found:
        value = said(network(**inputs))
        weights = [each for several in found.values() for each in several]
        gradients = iter(torch.autograd.grad(value, weights, allow_unused=True))
    parts: dict[str, Tensor] = {}
    for name, several in found.items():
        for each in several:  # differential attention weighs its values in two halves
            gradient = next(gradients)
            part = torch.zeros_like(each) if gradient is None else (each * gradient).detach()
            parts[name] = parts[name] + part if name in parts else part.detach()
    return parts


def confidence(output: Output) -> Tensor:
    """The log-probability of the token that the network finds most probable behind the text: what decoding takes."""
    logits: Tensor = output.head(output.hidden[:, -1:])
    return logits.float().log_softmax(-1).amax(-1).sum()
