"""What the network would say if it stopped after a layer."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.blocks.context import Context
from lit_transformer.blocks.stack import Stack
from lit_transformer.networks.base import Network


@torch.no_grad()
def logit_lens(network: Network, **inputs: Any) -> Float[Tensor, "L B T V"]:
    """Log-probabilities read off the stream behind each layer, by the network's own last norm and head.

    nostalgebraist, 2020 ("interpreting GPT: the logit lens"). The last entry is what the network says. Of an
    encoder-decoder, the decoder's layers.

    Args:
        network: The network, in evaluation mode.
        inputs: What it is called with.
    """
    return torch.stack(list(_behind_each_layer(network, inputs)))


@torch.no_grad()
def likeliest(
    network: Network, count: int = 3, **inputs: Any
) -> tuple[Float[Tensor, "L B T k"], Int[Tensor, "L B T k"]]:
    """Probabilities and ids of the tokens that the lens finds most probable; no more than one layer's logits are held.

    Args:
        network: The network, in evaluation mode.
        count: How many tokens at each place.
        inputs: What it is called with.
    """
    found = [each.exp().topk(min(count, each.shape[-1]), dim=-1) for each in _behind_each_layer(network, inputs)]
    return torch.stack([each.values for each in found]), torch.stack([each.indices for each in found])


def _behind_each_layer(network: Network, inputs: dict[str, Any]) -> Iterator[Float[Tensor, "B T V"]]:
    stack = [module for module in network.modules() if isinstance(module, Stack)][-1]
    streams: list[Tensor] = []
    contexts: list[Context] = []

    def keep(module: nn.Module, given: tuple[Any, ...], returned: tuple[Any, ...]) -> None:
        streams.append(returned[0])
        contexts.append(given[1])

    handles = [layer.register_forward_hook(keep) for layer in stack.layers]
    try:
        output = network(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    norm: Callable[..., Tensor] = stack.norm
    for stream, context in zip(streams, contexts, strict=True):
        yield output.head(norm(stream, context)).float().log_softmax(-1)
