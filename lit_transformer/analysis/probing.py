"""What can be measured of a network beside its loss: by position, by layer, by shift, by cache."""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.analysis.complexity import clock_for
from lit_transformer.networks.base import Network

_LAYER = re.compile(r"(.*?)\.?layers\.(\d+)\.")


@torch.no_grad()
def loss_by_position(network: Network, batches: Iterable[Any], per_octave: int = 2) -> dict[float, float]:
    """Nats per token by the number of tokens before it (counted from 1), in bins that grow with the position.

    Args:
        network: In evaluation mode.
        batches: What has ``inputs``, ``targets`` (-100: none) and ``positions``.
        per_octave: Bins for each doubling of the position; a bin is called by the geometric mean of its ends.
    """
    sums = torch.zeros(2, 0, dtype=torch.float64)
    for batch in batches:
        length = int(batch.positions.max()) + 1
        sums = F.pad(sums, (0, max(0, length - sums.shape[1])))
        for row in range(len(batch.tokens)):  # all logits of a batch may be more than there is room for
            here = {name: None if value is None else value[row : row + 1] for name, value in batch.inputs.items()}
            keep = batch.targets[row] >= 0
            logits = network(**here).logits[0][keep].float()
            losses = F.cross_entropy(logits, batch.targets[row][keep], reduction="none").double().cpu()
            sums.index_add_(1, batch.positions[row][keep].cpu(), torch.stack([losses, torch.ones_like(losses)]))
    result, first = {}, 1
    while first <= sums.shape[1]:
        stop = max(first + 1, math.ceil(first * 2 ** (1 / per_octave)))
        total, count = (float(each) for each in sums[:, first - 1 : stop - 1].sum(1))
        if count:
            result[round(math.sqrt(first * (stop - 1)), 2)] = total / count
        first = stop
    return result


@torch.no_grad()
def shift_difference(network: nn.Module, tokens: Tensor, shift: int) -> float:
    """The largest difference of a logit when all positions are moved by ``shift``: 0 for a purely relative position.

    Args:
        network: In evaluation mode; float64 says it exactly.
        tokens: (B, T) ids.
        shift: How far.
    """
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    here, there = (network(tokens=tokens, positions=positions + by).logits for by in (0, shift))
    return float((here - there).abs().max())


def gradient_norms(network: nn.Module, loss: Tensor) -> dict[str, dict[int, float]]:
    """Norm of the loss's gradient by layer, of every stack by its name ("stack", "encoder", "decoder").

    Args:
        network: The network.
        loss: A loss that it was computed by.
    """
    layers = parameters_by_layer(network)
    gradients = torch.autograd.grad(loss, [p for _, parameters in layers for p in parameters], allow_unused=True)
    norms: dict[str, dict[int, float]] = {}
    there = iter(gradients)
    for (stack, number), parameters in layers:
        mine = [gradient for _, gradient in zip(parameters, there, strict=False)]
        squares = [float(gradient.double().square().sum()) for gradient in mine if gradient is not None]
        norms.setdefault(stack, {})[number] = math.sqrt(math.fsum(squares))
    return norms


def parameters_by_layer(network: nn.Module) -> list[tuple[tuple[str, int], list[nn.Parameter]]]:
    """The parameters that are trained of each layer, under its stack's name and its number; none of what is around."""
    found: dict[tuple[str, int], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and (layer := _LAYER.match(name)):
            found.setdefault((layer[1], int(layer[2])), []).append(parameter)
    return sorted(found.items())


def names_by_layer(values: dict[str, dict[int, float]], name: str) -> dict[str, float]:
    """Values by stack and layer as metrics: ``name/LAYER``; of several stacks ``name_STACK/LAYER``."""
    names = {stack: name if len(values) == 1 else f"{name}_{stack}" for stack in values}
    return {f"{names[stack]}/{i}": value for stack, layers in values.items() for i, value in layers.items()}


@torch.no_grad()
def decoding_cost(network: Network, length: int, rows: int = 1, new_tokens: int = 32) -> dict[str, float]:
    """Bytes of the cache of a row at a length, and milliseconds of a step behind it, in which each row gets a token.

    Args:
        network: A network that decodes, in evaluation mode.
        length: Tokens in the cache.
        rows: Texts that are decoded at a time.
        new_tokens: Steps that are timed; the quickest counts, as what else runs only adds to it.
    """
    device = next(network.parameters()).device
    clock = clock_for(device)
    cache = network.new_cache(rows, length + new_tokens, device=device)
    tokens = torch.zeros(rows, length, dtype=torch.long, device=device)
    cache_after = network.prefill(tokens, cache=cache).cache
    assert cache_after is not None
    size, seconds = float(network.new_cache(1, length, device=device).nbytes), []
    for _ in range(new_tokens):
        begun = clock()
        output = network(tokens=tokens[:, :1], cache=cache_after)
        output.logits.sum().item()  # waits for an accelerator
        seconds.append(clock() - begun)
        cache_after = output.cache
    return {"cache_bytes": size, "milliseconds_per_token": min(seconds) * 1000}
