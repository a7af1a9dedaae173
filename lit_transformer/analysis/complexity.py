"""How computing time grows with the length of the text, measured."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lit_transformer.networks.base import Network


def clock_for(device: torch.device) -> Callable[[], float]:
    """The clock to time computations by, in seconds.

    Where one thread of a CPU computes, its own time, which other work on the machine does not disturb; else the wall's.
    """
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def median_milliseconds(
    compute: Callable[[], Tensor], clock: Callable[[], float] = time.perf_counter, seconds: float = 0.3, least: int = 3
) -> float:
    """The median time of a call, after one that does not count.

    Args:
        compute: What is timed.
        clock: Tells the time, in seconds.
        seconds: How long it is called, again and again.
        least: Calls at least.
    """
    compute()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        begun = clock()
        compute().sum().item()  # waits for an accelerator
        times.append(clock() - begun)
    return sorted(times)[len(times) // 2] * 1000


@torch.no_grad()
def time_by_length(network: Network, lengths: Sequence[int], seconds: float = 0.3) -> dict[str, dict[int, float]]:
    """Milliseconds that a network's first layer takes for one text, by length: ``attention`` and ``feed_forward``.

    Attention's time is that of the score products and their use together with its projections; the network is called
    with its own mask and kernel, and what the rest of it takes is measured by leaving attention's result out.

    Args:
        network: A network of one stack, in evaluation mode.
        lengths: Lengths of the text.
        seconds: Time for each measurement.
    """
    device = next(network.parameters()).device
    layers = network.stack.layers  # type: ignore[union-attr]
    attention, feed_forward = layers[0].attention, layers[0].feed_forward  # type: ignore[index, union-attr]
    found: dict[str, dict[int, float]] = {"attention": {}, "feed_forward": {}}
    for length in lengths:
        tokens = torch.zeros(1, length, dtype=torch.long, device=device)
        for name, module in (("attention", attention), ("feed_forward", feed_forward)):
            found[name][length] = _module_time(network, module, tokens, seconds)
    return found


def _module_time(network: nn.Module, module: nn.Module, tokens: Tensor, seconds: float) -> float:
    """The time of one module within the network: its inputs are caught, then it is called alone."""
    caught: list[tuple[tuple[object, ...], dict[str, object]]] = []
    handle = module.register_forward_pre_hook(lambda _, args, kwargs: caught.append((args, kwargs)), with_kwargs=True)
    try:
        network(tokens=tokens)
    finally:
        handle.remove()
    args, kwargs = caught[0]
    return median_milliseconds(lambda: _first(module(*args, **kwargs)), clock_for(tokens.device), seconds)


def _first(value: object) -> Tensor:
    while not isinstance(value, Tensor):
        value = value[0]  # type: ignore[index]
    return value


def exponent(times: Mapping[int, float]) -> float:
    """The slope of log time over log length, by least squares: 1 is linear, 2 quadratic."""
    points = [(math.log(length), math.log(value)) for length, value in times.items()]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    over = sum((x - mean_x) ** 2 for x, _ in points)
    return float(sum((x - mean_x) * (y - mean_y) for x, y in points) / over)


def crossover(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """The length at which the first becomes slower than the second, between two measured ones by logarithms."""
    lengths = sorted(first.keys() & second.keys())
    gaps = {length: math.log(first[length] / second[length]) for length in lengths}
    for before, after in zip(lengths, lengths[1:], strict=False):
        if gaps[before] <= 0 < gaps[after]:
            share = -gaps[before] / (gaps[after] - gaps[before])
            return float(math.exp(math.log(before) + share * (math.log(after) - math.log(before))))
    return None
