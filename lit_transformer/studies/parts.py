"""What a study's file is made of, beside recipes: steps after training, what is matched, what is measured."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lit_transformer.errors import UserError
from lit_transformer.recipe.tree import Mapping

TRAINED = "fit"
"""The name of the step that every cell begins with."""


class Part:
    """Base of the parts of a study."""


class Probe(Part):
    """Base of what is measured of a trained network beside its losses; see ``probes.py``."""

    names: ClassVar[tuple[str, ...]] = ()
    """Names that it may give, of a series without the place; where they stand, a measure of another is refused."""

    def __call__(self, task: Any, data: Any) -> dict[str, float]:
        """The numbers, by name; ``name/12`` is a point of the series ``name`` at 12.

        Args:
            task: The task with its trained network.
            data: The data, prepared.
        """
        raise NotImplementedError


@dataclass
class Step(Part):
    """What is done with a cell's checkpoint once it is trained: an evaluation, or a further training.

    Beside these arguments a step takes the sections of a recipe (``model``, ``data``, ``trainer``), which change the
    cell's recipe for this step.

    Args:
        name: How measures call it.
        verb: ``validate`` or ``test`` evaluate; ``fit`` trains on, from the checkpoint's weights, in a run of its own;
            ``probe`` measures something else.
        of: The step whose checkpoint is taken.
        checkpoint: Which of its two.
        overlays: Overlays on the cell's recipe.
        times: Numbers of the recipe that are multiplied, by key: ``{data.block_size: 2}``; whole ones are rounded down,
            to 1 at least.
        arms: The arms that have this step; left out: all.
        probe: What ``probe`` measures.
    """

    name: str
    verb: Literal["fit", "validate", "test", "probe"] = "validate"
    of: str = TRAINED
    checkpoint: Literal["last", "best"] = "last"
    overlays: list[str] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    arms: list[str] = field(default_factory=list)
    probe: Probe | None = None

    def __post_init__(self) -> None:
        self.changes: Mapping | None = None


def is_about(where: dict[str, str], setting: tuple[tuple[str, str], ...]) -> bool:
    """Whether a setting has all of these factors and levels."""
    return all(dict(setting).get(factor) == level for factor, level in where.items())


@dataclass
class Match(Part):
    """What arms must have in common, at most so far apart from the baseline's, as a share; null: printed, not checked.

    What cannot all be alike is said: at as many parameters a decoder takes twice an encoder-decoder's FLOPs.

    Args:
        parameters: Number of parameters.
        tokens: Tokens trained on.
        flops: FLOPs of a token, forward and backward.
        targets: What a loss is taken of: tokens of the translations, say, where batches are filled up to a budget.
        apart: Arms that are meant to differ, by what they differ in: ``{flops: [decoder]}``.
    """

    parameters: float | None = 0.05
    tokens: float | None = 0.0
    flops: float | None = None
    targets: float | None = None
    apart: dict[str, list[str]] = field(default_factory=dict)

    @property
    def most(self) -> dict[str, float | None]:
        """How far arms may be apart, by what is compared."""
        return {name: getattr(self, name) for name in ("parameters", "tokens", "flops", "targets")}


@dataclass(frozen=True)
class Number:
    """One number of a cell.

    Args:
        step: Name of a step.
        metric: What it logs, ``val/loss`` say.
    """

    step: str
    metric: str


@dataclass(frozen=True)
class Measure:
    """What arms are compared by: a number of each cell, or two of them put together.

    Args:
        name: How the report calls it.
        first: The number.
        operation: ``/`` or ``-``; left out: the number alone.
        second: What it is divided by, or less.
    """

    name: str
    first: Number
    operation: str = ""
    second: Number | None = None

    @classmethod
    def parse(cls, name: str, text: str) -> "Measure":
        """Reads ``STEP METRIC``, ``STEP METRIC / STEP METRIC`` or ``STEP METRIC - STEP METRIC``.

        Raises:
            UserError: Anything else.
        """
        words = text.split()
        if len(words) == 2:
            return cls(name, Number(*words))
        if len(words) == 5 and words[2] in ("/", "-"):
            return cls(name, Number(*words[:2]), words[2], Number(*words[3:]))
        raise UserError(
            f"study.measures.{name}: is {text!r}, expected 'STEP METRIC', or two of them with / or - between, "
            "such as 'long val/loss - fit val/loss'"
        )

    @property
    def numbers(self) -> list[Number]:
        """The numbers that it reads."""
        return [number for number in (self.first, self.second) if number is not None]

    @property
    def steps(self) -> list[str]:
        """The steps that it reads."""
        return [number.step for number in self.numbers]

    def __str__(self) -> str:
        return f" {self.operation} ".join(f"{number.step} {number.metric}" for number in self.numbers)
