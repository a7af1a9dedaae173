"""What was expected, held against what was found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from lit_transformer.analysis.means import shown
from lit_transformer.errors import UserError
from lit_transformer.recipe.suggest import hint
from lit_transformer.studies.parts import Part, is_about
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
        return is_about(self.where, setting)

    @property
    def arms(self) -> list[str]:
        """The arms that it speaks of; where one is left out of a setting, it says nothing there."""
        return [arm for arm in [getattr(self, "arm", ""), *(getattr(self, "than", None) or [])] if arm]

    def _named(self, name: str, known: Sequence[str], kind: str) -> None:
        if name not in known:
            raise UserError(f"{self.text!r}: there is no {kind} {name!r}{hint(name, known, kind + 's')}")


@dataclass
class AtLeast(Claim):
    """A measure of an arm reaches a value. Where some of its seeds diverge, the others alone do not show that it does.

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
        lost = _lost(results, self.arm, setting, self.measure)
        if found is None:
            return Verdict(UNKNOWN, lost)
        numbers = "; ".join([f"{_written(found)}, claimed {self.sign} {self.value:g}", *([lost] if lost else [])])
        outcome = self.judged(found)
        return Verdict(OPEN if lost and outcome == HOLDS else outcome, numbers)

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
    """A measure is lower in one arm than in others, seed by seed.

    Where only the others diverge, it is; where the arm itself diverges and the others do not, it is not, or with some
    of the seeds cannot be told.

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
    sign: ClassVar[int] = -1

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
            lost = [seed for seed in results.lost(other, setting, measure) if seed in mine]
            against = [seed for seed in results.lost(self.arm, setting, measure) if seed in theirs]
            if differences:
                found = mean(differences)
                side = _side(self.sign * found.value, found.half, strict=True)
                outcomes.append(OPEN if against and side == HOLDS else side)
                words.append(f"{self.arm} - {other} = {_written(found)}")
            else:
                outcomes.append(self.without_numbers(bool(lost), bool(against)))
            words += [said] if (said := _lost(results, other, setting, self.measure)) else []
        words += [said] if (said := _lost(results, self.arm, setting, self.measure)) else []
        worst = next((each for each in (UNKNOWN, FAILS, OPEN, HOLDS) if each in outcomes), UNKNOWN)
        return Verdict(worst, "; ".join(words))

    def without_numbers(self, lost: bool, against: bool) -> str:
        """What is known where no seed has both numbers: others were lost that the arm has, or the other way round."""
        return OPEN if lost and against else HOLDS if lost else FAILS if against else UNKNOWN


@dataclass
class Above(Below):
    """A measure is higher in one arm than in others, seed by seed; what diverges tells nothing. See ``Below``."""

    sign: ClassVar[int] = 1

    def without_numbers(self, lost: bool, against: bool) -> str:
        """See the base class."""
        return OPEN if lost or against else UNKNOWN


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


def _lost(results: "Results", arm: str, setting: "Setting", measure: str) -> str:
    """How many seeds of an arm diverged or have no finite number, in words; empty where none."""
    lost = list(results.lost(arm, setting, results.measure(measure)).values())
    words = {"diverged": "diverged", "not finite": "is not finite"}
    seeds = len(results.of(arm, setting))
    return ", ".join(f"{arm} {words[why]} with {lost.count(why)} of {seeds} seeds" for why in dict.fromkeys(lost))


def _written(found: Mean) -> str:
    spread = "" if math.isnan(found.half) else f" ± {shown(found.half, 2)}"
    return f"{shown(found.value, 4)}{spread} (n = {found.count})"
