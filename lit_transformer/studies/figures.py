"""The pictures of a report: each a class that a study names, drawn by a public function of ``analysis``."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lit_transformer.analysis.chart import Axis, Chart, Point, heat_chart, interval_chart, line_chart
from lit_transformer.errors import UserError
from lit_transformer.recipe.suggest import hint
from lit_transformer.studies.parts import TRAINED, Number, Part
from lit_transformer.studies.statistics import Mean, mean

if TYPE_CHECKING:
    from lit_transformer.studies.results import Results, Setting


@dataclass
class StudyFigure(Part):
    """Base of the figures.

    Args:
        title: Written above.
    """

    title: str = ""

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """Refuses names that the study does not have.

        Raises:
            UserError: One that it does not.
        """

    def charts(self, results: "Results") -> Iterator[Chart]:
        """The pictures, of each setting one where nothing else is said."""
        for setting in results.settings:
            chart = self.chart(results, setting, titled(self.title or self.default_title, setting))
            if chart is not None:
                yield chart

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """The picture of one setting; None where nothing is known."""
        raise NotImplementedError

    default_title = ""

    def _named(self, names: Sequence[str], known: Sequence[str], kind: str) -> None:
        for name in names:
            if name not in known:
                raise UserError(f"{type(self).__name__}: there is no {kind} {name!r}{hint(name, known, kind + 's')}")


@dataclass
class Intervals(StudyFigure):
    """The arms' means of a measure with their 95 % intervals, and every seed.

    Args:
        title: Written above.
        measure: The measure.
        log: Whether by logarithm.
    """

    measure: str = "loss"
    log: bool = False
    default_title = "means over seeds with 95 % intervals"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.measure], measures, "measure")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        measure = results.measure(self.measure)
        rows: dict[str, list[Point]] = {arm: [] for arm in results.arms}  # an arm has its colour in all pictures
        for arm in results.arms:
            values = results.values(arm, setting, measure)
            if values:
                found = mean(list(values.values()))
                rows[arm] = [point(0, found, arm)]
                rows[arm] += [
                    Point(0, value, note=f"{arm}, seed {seed}: {value:.5g}") for seed, value in values.items()
                ]
        return interval_chart(title, rows, str(measure), self.log) if any(rows.values()) else None


@dataclass
class Steps(StudyFigure):
    """A metric over steps that are one evaluation after the other, of longer and longer texts say; a line for each arm.

    Args:
        title: Written above.
        metric: The metric.
        steps: Names of the steps, in order.
        x: Where each stands; left out: one after the other.
        label: What x is.
        relative: Whether values are divided by that of the first step.
        log_y: Whether the axis up goes by logarithm.
        arms: The arms that are drawn; left out: all.
    """

    metric: str = "val/loss"
    steps: list[str] = field(default_factory=list)
    x: list[float] = field(default_factory=list)
    label: str = ""
    relative: bool = False
    log_y: bool = False
    arms: list[str] = field(default_factory=list)

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named(self.steps, steps, "step")
        self._named(self.arms, arms, "arm")
        if not self.steps or (self.x and len(self.x) != len(self.steps)):
            raise UserError("Steps: 'steps' and 'x' must be of one length, and not empty")

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The metric."""
        return self.metric + (" relative to the first" if self.relative else "")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        places = self.x or [float(i) for i in range(len(self.steps))]
        dot = "" if self.x else "."  # between names there is no line
        lines: dict[str, list[Point]] = {f"{dot}{arm}": [] for arm in results.arms}
        for arm in self.arms or results.arms:
            points = []
            for place, step in zip(places, self.steps, strict=True):
                values = []
                for outcome in results.of(arm, setting):
                    value = outcome.number(Number(step, self.metric))
                    first = outcome.number(Number(self.steps[0], self.metric))
                    if value is not None and not (self.relative and not first):
                        values.append(value / first if self.relative and first else value)
                if values:
                    points.append(point(place, mean(values), f"{arm}, {step}"))
            lines[f"{dot}{arm}"] = points
        names = [] if self.x else self.steps
        up = self.metric + (f", over that of {self.steps[0]}" if self.relative else "")
        axes = Axis(self.label, log=bool(self.x) and min(self.x) > 0, names=names), Axis(up, log=self.log_y)
        size = max(760.0, 240 + 86.0 * len(names)), 400.0
        return line_chart(title, lines, *axes, size) if any(lines.values()) else None


@dataclass
class Curves(StudyFigure):
    """A metric during training: the mean over seeds with its interval, a line for each arm.

    Args:
        title: Written above.
        metric: The metric.
        step: The training: ``fit``, or the name of a further one.
        log_y: Whether the axis up goes by logarithm.
    """

    metric: str = "val/loss"
    step: str = TRAINED
    log_y: bool = False

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The metric."""
        return f"{self.metric} during training"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.step], steps, "step")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        lines: dict[str, list[Point]] = {arm: [] for arm in results.arms}
        for arm in results.arms:
            at: dict[float, list[float]] = {}
            for outcome in results.of(arm, setting):
                for place, value in outcome.step(self.step).get("curves", {}).get(self.metric, []):
                    if value is not None:
                        at.setdefault(float(place), []).append(float(value))
            if at:
                lines[arm] = [point(place, mean(values), f"{arm}, step {place:g}") for place, values in at.items()]
        axes = Axis("optimizer step"), Axis(self.metric, log=self.log_y)
        return line_chart(title, lines, *axes) if any(lines.values()) else None


@dataclass
class Series(StudyFigure):
    """A series that a step measured, over its own axis: loss by position, gradient norm by layer.

    Args:
        title: Written above.
        step: The step.
        name: Name of the series: its points are the metrics ``NAME/X``.
        label: What x is.
        log_x: Whether the axis across goes by logarithm.
        log_y: Whether the axis up does.
    """

    step: str = ""
    name: str = ""
    label: str = ""
    log_x: bool = False
    log_y: bool = False

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The series."""
        return self.name

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.step], steps, "step")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        lines: dict[str, list[Point]] = {arm: [] for arm in results.arms}
        for arm in results.arms:
            at = series_values(results, arm, setting, self.step, self.name)
            if at:
                lines[arm] = [point(place, mean(at[place]), f"{arm}, {place:g}") for place in sorted(at)]
        axes = Axis(self.label, log=self.log_x), Axis(self.name, log=self.log_y)
        return line_chart(title, lines, *axes) if any(lines.values()) else None


@dataclass
class Heat(StudyFigure):
    """A measure's means in a table of arms and settings, one picture for the whole study.

    Args:
        title: Written above.
        measure: The measure.
        log: Whether colours go by logarithm.
    """

    measure: str = "loss"
    log: bool = False
    default_title = "means over seeds"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.measure], measures, "measure")

    def charts(self, results: "Results") -> Iterator[Chart]:
        """See the base class."""
        measure = results.measure(self.measure)
        values: dict[tuple[str, str], float | None] = {}
        said: dict[tuple[str, str], str] = {}
        columns = [setting_name(setting) or "all" for setting in results.settings]
        for setting, column in zip(results.settings, columns, strict=True):
            for arm in results.arms:
                found = results.mean(arm, setting, measure)
                values[arm, column] = None if found is None else found.value
                statuses = [outcome.status for outcome in results.of(arm, setting)]
                said[arm, column] = statuses[0] if statuses and statuses[0] != "done" else "" if statuses else "not run"
        label = f"{measure}" + (", colours by logarithm" if self.log else "")
        yield heat_chart(self.title or self.default_title, results.arms, columns, values, label,
                         lambda row, column: said[row, column], self.log)  # fmt: skip


def series_values(results: "Results", arm: str, setting: "Setting", step: str, name: str) -> dict[float, list[float]]:
    """The values of all seeds of a series that a step measured, by place."""
    at: dict[float, list[float]] = {}
    for outcome in results.of(arm, setting):
        for metric, value in outcome.step(step).get("metrics", {}).items():
            series, _, place = metric.rpartition("/")
            if series == name and value is not None:
                at.setdefault(float(place), []).append(float(value))
    return at


def fact_of(results: "Results", arm: str, setting: "Setting", fact: str) -> float | None:
    """What is known of an arm's cells under a setting before training, or what they cost on average."""
    cells = results.of(arm, setting)
    if not cells:
        return None
    if fact == "seconds":
        seconds = [cost for each in cells if (cost := each.cost(results.clock)) is not None]
        return math.fsum(seconds) / len(seconds) if seconds else None
    facts = results.study["facts"].get(cells[0].group)
    if facts is None:
        return None
    return float(facts["flops"] * facts["tokens"] if fact == "compute" else facts[fact])


def setting_name(setting: "Setting") -> str:
    """A setting in words, empty where there is none."""
    return ", ".join(f"{factor} {level}" for factor, level in setting)


def titled(title: str, setting: "Setting") -> str:
    """The title with the setting behind it."""
    name = setting_name(setting)
    return f"{title} ({name})" if name else title


def point(x: float, found: Mean, name: str) -> Point:
    """A mean as a mark that says its numbers."""
    spread = "" if math.isnan(found.half) else f" ± {found.half:.2g}"
    return Point(x, found.value, found.low, found.high, f"{name}: {found.value:.5g}{spread} (n = {found.count})")
