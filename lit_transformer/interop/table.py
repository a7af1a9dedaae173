"""A table of weights: which of theirs are which of ours, and what lies between. It is read in both directions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lit_transformer.interop.transforms import Transform


@dataclass(frozen=True)
class Entry:
    """One line: some of our weights are some of theirs.

    Args:
        ours: Our names.
        theirs: Their names.
        steps: What is done to theirs, in this order, to make ours.
        optional: Whether theirs may be missing, and are zeros then.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    steps: tuple[Transform, ...] = ()
    optional: bool = False

    def inward(self, theirs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Our weights, made of theirs."""
        values = list(theirs)
        for step in self.steps:
            values = step.inward(values)
        return dict(zip(self.ours, values, strict=True))

    def outward(self, ours: Sequence[Tensor]) -> dict[str, Tensor]:
        """Their weights, made of ours."""
        values = list(ours)
        for step in reversed(self.steps):
            values = step.outward(values)
        return dict(zip(self.theirs, values, strict=True))


def same(ours: str, theirs: str, *steps: Transform, optional: bool = False) -> Entry:
    """One of ours is one of theirs."""
    return Entry((ours,), (theirs,), steps, optional)


def fused(ours: Iterable[str], theirs: str, *steps: Transform) -> Entry:
    """Several of ours are one of theirs."""
    return Entry(tuple(ours), (theirs,), steps)


def both(ours: str, theirs: str, *steps: Transform, bias: bool = True) -> list[Entry]:
    """Weight and bias of a product or a norm."""
    names = ("weight", "bias") if bias else ("weight",)
    return [same(f"{ours}.{name}", f"{theirs}.{name}", *steps) for name in names]


def outward(table: Iterable[Entry], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of their weights, made of ours."""
    return {name: value for entry in table for name, value in entry.outward([ours[n] for n in entry.ours]).items()}
