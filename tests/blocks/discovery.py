"""Finds every part by its base class, so that a new one is tested without an edit here."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

import lit_transformer.blocks as blocks
from lit_transformer.blocks import And, Causal, Kernel, Mask, Or, Position, RoPE, Scaling, SlidingWindow
from lit_transformer.blocks.position import Stretch
from lit_transformer.dims import Dims

DIMS = Dims(d_model=24, n_layers=2, n_heads=3, n_kv_heads=1, head_dim=8, d_ff=16, max_len=2048)


def subclasses(base: type, package: str = blocks.__name__) -> list[type]:
    """All public classes below ``base`` that are part of the package, by name."""
    found: dict[str, type] = {}

    def walk(cls: type) -> Iterator[type]:
        for each in cls.__subclasses__():
            yield each
            yield from walk(each)

    for cls in walk(base):
        if cls.__module__.startswith(package) and not cls.__name__.startswith("_"):
            found[cls.__name__] = cls
    return [found[name] for name in sorted(found)]


def small_mask(cls: type[Mask]) -> Mask:
    """An example whose pattern shows within some twenty tokens: every number at most 4."""
    numbers = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if issubclass(cls, And | Or):
            numbers[name] = [Causal(), SlidingWindow(5)]
        elif isinstance(parameter.default, int) and name != "seed":
            numbers[name] = min(parameter.default, 4 if name != "summary" else 1)
    return cls(**numbers)


MASKS = {cls.__name__: small_mask(cls) for cls in subclasses(Mask)}


def causal(mask: Mask) -> Mask:
    """The mask as a decoder can use it."""
    return Causal() & mask


POSITIONS: dict[str, Callable[[Dims], Position]] = {cls.__name__: cls for cls in subclasses(Position)}
POSITIONS |= {f"RoPE[{cls.__name__}]": partial(RoPE, scaling=cls) for cls in subclasses(Scaling) if cls is not Stretch}
POSITIONS["RoPE[half]"] = partial(RoPE, share=0.5)

KERNELS = {cls.__name__: cls for cls in subclasses(Kernel)}


def randomised(module: nn.Module, seed: int = 0, std: float = 0.3) -> nn.Module:
    """Every parameter drawn anew, so that nothing is hidden by a start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std)
    return module


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Equal up to ``tolerance`` times the size of the numbers."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(b.detach().abs().max())))
