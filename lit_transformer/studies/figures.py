"""The pictures of a report: each a class that a study names, drawn by a public function of ``analysis``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lit_transformer.analysis.axes import Axis
from lit_transformer.analysis.chart import Chart, heat_chart
from lit_transformer.analysis.seed_charts import arms_chart, series_chart, steps_chart
from lit_transformer.errors import UserError
from lit_transformer.recipe.suggest import hint
from lit_transformer.studies.drawing import (
    curve_values,
    measure_words,
    metric_words,
    series_values,
    setting_name,
    step_values,
    titled,
)
from lit_transformer.studies.drawing import fact_of as fact_of
from lit_transformer.studies.parts import TRAINED, Part

if TYPE_CHECKING:
    from lit_transformer.studies.results import Results, Setting


class NothingToDraw(Exception):
    """Why a figure cannot be drawn, for the report to say."""


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

    def draw(self, folder: str | Path) -> list[Chart]:
        """The pictures of a study's folder, for a notebook: ``Curves().draw("runs/studies/ablation")``.

        Raises:
            UserError: There is no study in the folder.
        """
        from lit_transformer.studies.results import Results

        return list(self.charts(Results(folder)))

    def charts(self, results: "Results") -> Iterator[Chart]:
        """The pictures, of each setting one where nothing else is said.

        Raises:
            NothingToDraw: Why there is none.
        """
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

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The measure."""
        return self.measure

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.measure], measures, "measure")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        measure = results.measure(self.measure)
        # Every arm, also without values: it has its colour in all pictures.
        values = {arm: results.values(arm, setting, measure) for arm in results.arms}
        means = " (means with 95 % intervals)" if any(len(each) > 1 for each in values.values()) else ""
        return arms_chart(title, values, f"{measure_words(measure)}{means}", self.log) if any(values.values()) else None


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
        return metric_words(self.metric) + (f", divided by that of {self.steps[0]}" if self.relative else "")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        drawn = self.arms or results.arms
        values = {
            arm: step_values(results, arm, setting, self.steps, self.metric) if arm in drawn else {}
            for arm in results.arms
        }
        if not any(seeds for steps in values.values() for seeds in steps.values()):
            return None
        places = dict(zip(self.steps, self.x, strict=True)) if self.x else None
        return steps_chart(title, values, places, self.label, metric_words(self.metric), self.relative, self.log_y)


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
        return f"{metric_words(self.metric)} during training"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.step], steps, "step")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        values = {arm: curve_values(results, arm, setting, self.step, self.metric) for arm in results.arms}
        axes = Axis("optimizer step"), Axis(metric_words(self.metric), log=self.log_y)
        return series_chart(title, values, *axes) if any(values.values()) else None


@dataclass
class Series(StudyFigure):
    """A series that a step measured, over its own axis: loss by position, gradient norm by layer.

    Args:
        title: Written above.
        step: The step.
        name: Name of the series: its points are the metrics ``NAME/X``.
        label: What x is.
        unit: What y is; left out: the name in words.
        log_x: Whether the axis across goes by logarithm.
        log_y: Whether the axis up does.
    """

    step: str = ""
    name: str = ""
    label: str = ""
    unit: str = ""
    log_x: bool = False
    log_y: bool = False

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The series, and the step that measured it."""
        return f"{self.words} ({self.step})"

    @property
    def words(self) -> str:
        """What y is."""
        return self.unit or self.name.replace("_", " ")

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.step], steps, "step")

    def chart(self, results: "Results", setting: "Setting", title: str) -> Chart | None:
        """See the base class."""
        values = {arm: series_values(results, arm, setting, self.step, self.name) for arm in results.arms}
        axes = Axis(self.label, log=self.log_x), Axis(self.words, log=self.log_y)
        return series_chart(title, values, *axes) if any(values.values()) else None


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

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The measure."""
        return self.measure

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
                run = bool(results.of(arm, setting))
                said[arm, column] = results.why(arm, setting, measure) if run else "not run"
        if all(value is None for value in values.values()):
            return
        label = f"{measure_words(measure)}, means over seeds" + (", colours by logarithm" if self.log else "")
        yield heat_chart(self.title or self.default_title, results.arms, columns, values, label,
                         lambda row, column: said[row, column], self.log)  # fmt: skip
