"""What was expected, held against what was found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lit_transformer.analysis.means import shown
from lit_transformer.errors import UserError
from lit_transformer.recipe.suggest import hint
from lit_transformer.studies.parts import Part
from lit_transformer.studies.statistics import Mean, mean

if TYPE_CHECKING:
    from lit_transformer.studies.results import Results, Setting

HOLDS, FAILS, OPEN, UNKNOWN = "holds", "does not hold", "cannot be told", "not measured"


@dataclass(frozen=True)
class Verdict:
    """What became of a claim under a setting.

    Args:
        outcome: holds, does not hold, cannot be told (the interval lies on both sides), not measured.
        numbers: The numbers, in words.
    """

    outcome: str
    numbers: str


@dataclass
class Claim(Part):
    """Base of the claims.

    Args:
        text: What is claimed, in words.
        source: Who says so.
        where: Factors and levels of the settings that it is about; left out: all.
        note: What a reader should know of it: that its threshold was changed after a result was seen, say.
    """

    text: str
    source: str = ""
    where: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """Refuses names that the study does not have.

        Raises:
            UserError: One that it does not.
        """

    def verdict(self, results: "Results", setting: "Setting") -> Verdict:
        """What the numbers say."""
        raise NotImplementedError

    def about(self, setting: "Setting") -> bool:
        """Whether it says something of a setting."""
        return all(dict(setting).get(factor) == level for factor, level in self.where.items())

    @property
    def arms(self) -> list[str]:
        """The arms that it speaks of; where one is left out of a setting, it says nothing there."""
        return [arm for arm in [getattr(self, "arm", ""), *(getattr(self, "than", None) or [])] if arm]

    def _named(self, name: str, known: Sequence[str], kind: str) -> None:
        if name not in known:
            raise UserError(f"{self.text!r}: there is no {kind} {name!r}{hint(name, known, kind + 's')}")


@dataclass
class AtLeast(Claim):
    """A measure of an arm reaches a value.

    Args:
        text: What is claimed, in words.
        source: Who says so.
        where: Factors and levels of the settings that it is about; left out: all.
        note: What a reader should know of it.
        arm: The arm.
        measure: The measure.
        value: What it reaches.
    """

    arm: str = ""
    measure: str = ""
    value: float = 0.0

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named(self.arm, arms, "arm")
        self._named(self.measure, measures, "measure")

    def verdict(self, results: "Results", setting: "Setting") -> Verdict:
        """See the base class."""
        found = results.mean(self.arm, setting, results.measure(self.measure))
        if found is None:
            return Verdict(UNKNOWN, "")
        return Verdict(self.judged(found), f"{_written(found)}, claimed {self.sign} {self.value:g}")

    sign = ">="

    def judged(self, found: Mean) -> str:
        """Where the interval lies."""
        return _side(found.value - self.value, found.half)


@dataclass
class AtMost(AtLeast):
    """A measure of an arm stays at or below a value; see ``AtLeast``."""

    sign = "<="

    def judged(self, found: Mean) -> str:
        """See the base class."""
        return _side(self.value - found.value, found.half)


@dataclass
class Below(Claim):
    """A measure is lower in one arm than in others, seed by seed; where only the others diverge, it is.

    Args:
        text: What is claimed, in words.
        source: Who says so.
        where: Factors and levels of the settings that it is about; left out: all.
        note: What a reader should know of it.
        arm: The arm.
        than: The others; each comparison must hold.
        measure: The measure.
    """

    arm: str = ""
    than: list[str] | None = None
    measure: str = ""

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        for arm in [self.arm, *(self.than or [])]:
            self._named(arm, arms, "arm")
        self._named(self.measure, measures, "measure")
        if not self.than:
            raise UserError(f"{self.text!r}: 'than' names no arm")

    def verdict(self, results: "Results", setting: "Setting") -> Verdict:
        """See the base class."""
        measure = results.measure(self.measure)
        mine = results.values(self.arm, setting, measure)
        outcomes, words = [], []
        for other in self.than or []:
            theirs = results.values(other, setting, measure)
            differences = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
            lost = sum(each.status == "diverged" and each.seed in mine for each in results.of(other, setting))
            if differences:
                found = mean(differences)
                outcomes.append(_side(-found.value, found.half, strict=True))
                words.append(f"{self.arm} - {other} = {_written(found)}")
            else:
                outcomes.append(HOLDS if lost else UNKNOWN)
            words += [f"{other} diverged with {lost} of {len(mine)} seeds"] if lost else []
        worst = next((each for each in (UNKNOWN, FAILS, OPEN, HOLDS) if each in outcomes), UNKNOWN)
        return Verdict(worst, "; ".join(words))


@dataclass
class Refused(Claim):
    """A step cannot be done with an arm at all: the table of positions ends.

    Args:
        text: What is claimed, in words.
        source: Who says so.
        where: Factors and levels of the settings that it is about; left out: all.
        note: What a reader should know of it.
        arm: The arm.
        step: The step.
    """

    arm: str = ""
    step: str = ""

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named(self.arm, arms, "arm")
        self._named(self.step, steps, "step")

    def verdict(self, results: "Results", setting: "Setting") -> Verdict:
        """See the base class."""
        found = [each.step(self.step) for each in results.of(self.arm, setting)]
        known = [each for each in found if each]
        if not known:
            return Verdict(UNKNOWN, "")
        refused = [each for each in known if each["outcome"] == "refused"]
        return Verdict(HOLDS if len(refused) == len(known) else FAILS, refused[0]["why"] if refused else "it was done")


def _side(margin: float, half: float, strict: bool = False) -> str:
    """What a margin that should not be negative says, with half of its interval."""
    if math.isnan(half):
        return OPEN  # of one seed nobody knows how far another would be off
    if margin - half > 0 or (margin - half == 0 and not strict):
        return HOLDS
    return FAILS if margin + half < 0 or (margin == 0 and half == 0) else OPEN


def _written(found: Mean) -> str:
    spread = "" if math.isnan(found.half) else f" ± {shown(found.half, 2)}"
    return f"{shown(found.value, 4)}{spread} (n = {found.count})"
