"""How computing time grows with the length of the text and the width of the network, measured."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_transformer.networks.base import Network

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A part and what it is called with."""


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
    """Milliseconds that a network's first layer takes for one text, by length.

    ``attention`` is the whole sublayer with its projections; ``scores`` the part of it between those: the products of
    queries and keys, and the use of the weights; ``feed_forward`` the other sublayer. The network is called with its
    own mask and kernel, the inputs of its parts are caught, and then the parts are called alone.

    Args:
        network: A network of one stack, in evaluation mode.
        lengths: Lengths of the text.
        seconds: Time for each measurement.
    """
    device = next(network.parameters()).device
    stack: Any = network.stack
    layer = stack.layers[0]
    parts = {"attention": layer.attention, "scores": stack.kernel, "feed_forward": layer.feed_forward}
    found: dict[str, dict[int, float]] = {"attention": {}, "scores": {}, "feed_forward": {}}
    for length in lengths:
        tokens = torch.zeros(1, length, dtype=torch.long, device=device)
        for name, part in parts.items():
            call = _call_of(network, part, tokens)
            if call is not None:
                found[name][length] = median_milliseconds(partial(_result, call), clock_for(device), seconds)
    return {name: times for name, times in found.items() if times}


def time_by_size(
    make: Callable[[int], Network], widths: Sequence[int], lengths: Sequence[int], seconds: float = 0.3
) -> dict[str, dict[tuple[int, int], float]]:
    """``time_by_length`` of networks of several widths, by (length, width): what ``exponents`` are fitted to.

    Args:
        make: A network of a width d_model, its heads all of one size: there are more of them in a wider network.
        widths: Its widths.
        lengths: Lengths of the text.
        seconds: Time for each measurement.
    """
    found: dict[str, dict[tuple[int, int], float]] = {}
    for width in widths:
        for name, times in time_by_length(make(width).eval(), lengths, seconds).items():
            found.setdefault(name, {}).update({(length, width): value for length, value in times.items()})
    return found


def _call_of(network: nn.Module, module: nn.Module, tokens: Tensor) -> Call | None:
    """A module and the arguments that the network hands to it, if it does: not every attention takes the kernel."""
    caught: list[Call] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: caught.append((module, args, kwargs)), with_kwargs=True
    )
    try:
        network(tokens=tokens)
    finally:
        handle.remove()
    return caught[0] if caught else None


def _result(call: Call) -> Tensor:
    function, args, kwargs = call
    return _first(function(*args, **kwargs))


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


def exponents(times: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """a and b of time = c x length^a x width^b, by least squares of logarithms; times by (length, width)."""
    sizes = np.log(np.array(list(times), dtype=float))
    columns = np.column_stack([np.ones(len(sizes)), sizes])
    _, by_length, by_width = np.linalg.lstsq(columns, np.log(list(times.values())), rcond=None)[0]
    return float(by_length), float(by_width)


def crossover(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """The length at which the first becomes slower than the second, between two measured ones by logarithms."""
    lengths = sorted(first.keys() & second.keys())
    gaps = {length: math.log(first[length] / second[length]) for length in lengths}
    for before, after in zip(lengths, lengths[1:], strict=False):
        if gaps[before] <= 0 < gaps[after]:
            share = -gaps[before] / (gaps[after] - gaps[before])
            return float(math.exp(math.log(before) + share * (math.log(after) - math.log(before))))
    return None
