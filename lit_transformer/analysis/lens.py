"""What the network would say if it stopped after a layer."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
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
    return torch.stack(
        [
            output.head(norm(stream, context)).float().log_softmax(-1)
            for stream, context in zip(streams, contexts, strict=True)
        ]
    )
