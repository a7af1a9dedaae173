"""How much a head matters: by leaving it out, by the gradient, by what its values weigh."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.analysis.record import AttentionLayer
from lit_transformer.blocks.attention import BaseAttention
from lit_transformer.blocks.differential_attention import DifferentialAttention
from lit_transformer.blocks.latent_attention import LatentAttention
from lit_transformer.networks.base import Network

Loss = Callable[[], Tensor]
"""Runs the network and gives a loss, the same each time it is called."""


def heads_of(network: Network) -> Iterator[tuple[str, nn.Module, int]]:
    """(path, product behind the heads, number of heads) of every attention whose heads stand side by side."""
    for name, module in network.named_modules():
        output = getattr(module, "output", None)
        if isinstance(module, BaseAttention) and isinstance(output, nn.Linear):
            yield name, output, module.dims.n_heads


@contextmanager
def without_head(output: nn.Module, heads: int, head: int) -> Iterator[None]:
    """One head's share of what goes into the product behind the heads is 0."""

    def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        x = given[0].unflatten(-1, (heads, -1)).clone()
        x[..., head, :] = 0
        return (x.flatten(-2), *given[1:])

    handle = output.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def by_ablation(network: Network, loss: Loss) -> dict[tuple[str, int], float]:
    """How much the loss grows when a head is left out (Michel et al., 2019, arXiv:1905.10650): one run a head.

    Args:
        network: The network, in evaluation mode.
        loss: Runs it.
    """
    whole = float(loss())
    found = {}
    for name, output, heads in heads_of(network):
        for head in range(heads):
            with without_head(output, heads, head):
                found[name, head] = float(loss()) - whole
    return found


def by_gradient(network: Network, loss: Loss) -> dict[tuple[str, int], float]:
    """How much the loss would change with a head's strength, to first order (the same paper): one run for all.

    Args:
        network: The network, in evaluation mode.
        loss: Runs it; its mean absolute value over rows is taken.
    """
    inputs: dict[str, Tensor] = {}
    sizes = {name: heads for name, _, heads in heads_of(network)}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            x = given[0] if given[0].requires_grad else given[0].requires_grad_()
            inputs[name] = x
            return (x, *given[1:])

        return hook

    handles = [output.register_forward_pre_hook(keep(name)) for name, output, _ in heads_of(network)]
    try:
        with torch.enable_grad():
            value = loss()
            gradients = torch.autograd.grad(value, list(inputs.values()), allow_unused=True, materialize_grads=True)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for (name, x), gradient in zip(inputs.items(), gradients, strict=True):
        parts = (x.detach() * gradient).unflatten(-1, (sizes[name], -1)).sum(-1)  # (B, T, H)
        for head, number in enumerate(parts.sum(1).abs().mean(0).tolist()):
            found[name, head] = number
    return found


@torch.no_grad()
def value_sizes(layer: AttentionLayer) -> Float[Tensor, "H S"] | None:
    """Length of what each value of the first row becomes behind the head's product; None where values are not known.

    Args:
        layer: One attention.
    """
    if not layer.calls or isinstance(layer.module, DifferentialAttention):
        return None  # a difference of two maps weighs values twice as wide
    call = layer.calls[-1]
    if isinstance(layer.module, LatentAttention):
        if call.v.shape[1] != call.q.shape[1]:
            return None  # decoding works on latents and never makes the values
        call = replace(call, v=call.v[..., : layer.module.value_size])
    values = call.v[:1].to(torch.promote_types(call.v.dtype, torch.float32))
    sizes: Tensor = _sizes(layer, values.repeat_interleave(call.q.shape[1] // call.v.shape[1], dim=1))[0]
    return sizes


def _sizes(layer: AttentionLayer, values: Float[Tensor, "B H S K"]) -> Float[Tensor, "B H S"]:
    output = getattr(layer.module, "output", None)
    if not (isinstance(output, nn.Linear) and output.weight.shape[1] == values.shape[1] * values.shape[-1]):
        length: Tensor = values.norm(dim=-1)
        return length
    product = output.weight.to(values.dtype).unflatten(1, (values.shape[1], -1))  # (D, H, K)
    gram = torch.einsum("dhk,dhl->hkl", product, product)  # |W v|^2 = v (W^T W) v: nothing as wide as the stream
    return torch.einsum("bhsk,hkl,bhsl->bhs", values, gram, values).clamp(min=0).sqrt()


@torch.no_grad()
def value_weighted(layer: AttentionLayer, rows: slice = slice(None)) -> Float[Tensor, "B H t S"]:
    """Attention weights times the length of what each value becomes behind the head's product.

    A large weight on a small value moves little (Kobayashi et al., 2020, arXiv:2004.10102).

    Args:
        layer: One forward pass of one attention.
        rows: Which queries.
    """
    call = layer.calls[-1]
    weights = layer.weights(rows=rows)
    values = call.v.to(weights.dtype).repeat_interleave(call.q.shape[1] // call.v.shape[1], dim=1)
    weighted: Tensor = weights * _sizes(layer, values).unsqueeze(-2)
    return weighted
