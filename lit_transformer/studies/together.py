"""Several series of one arm in one picture, so that it shows where one overtakes another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lit_transformer.analysis.axes import Axis
from lit_transformer.analysis.chart import Chart
from lit_transformer.analysis.seed_charts import series_chart
from lit_transformer.errors import UserError
from lit_transformer.studies.drawing import curve_values, metric_words, series_values, titled
from lit_transformer.studies.figures import StudyFigure
from lit_transformer.studies.parts import TRAINED, is_about

if TYPE_CHECKING:
    from lit_transformer.studies.results import Results


@dataclass
class Together(StudyFigure):
    """Several series that a step measured of one arm, a line for each: milliseconds of a layer's parts by length.

    Args:
        title: Written above.
        arm: The arm.
        step: The step.
        series: Names of the series, and how the legend calls them.
        crossing: A measure whose mean is drawn as an upright line: where two of them cross.
        label: What x is.
        unit: What y is.
        log_x: Whether the axis across goes by logarithm.
        log_y: Whether the axis up does.
    """

    arm: str = ""
    step: str = ""
    series: dict[str, str] = field(default_factory=dict)
    crossing: str = ""
    label: str = ""
    unit: str = ""
    log_x: bool = False
    log_y: bool = False

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The series."""
        return ", ".join(self.series.values())

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.arm], arms, "arm")
        self._named([self.step], steps, "step")
        self._named([self.crossing] if self.crossing else [], measures, "measure")

    def charts(self, results: "Results") -> Iterator[Chart]:
        """See the base class."""
        for setting in results.settings:
            values = {
                words: series_values(results, self.arm, setting, self.step, name) for name, words in self.series.items()
            }
            if not any(values.values()):
                continue
            found = results.mean(self.arm, setting, results.measure(self.crossing)) if self.crossing else None
            upright = {} if found is None else {f"{self.crossing} at {found.value:.4g}": found.value}
            axes = Axis(self.label, log=self.log_x), Axis(self.unit, log=self.log_y)
            yield series_chart(titled(self.title or self.default_title, setting), values, *axes, upright)


@dataclass
class SeriesDuring(StudyFigure):
    """A series that one arm logged during training: a line for each of its places, gradient norms by layer say.

    Args:
        title: Written above, with the arm behind it.
        arms: The arms, a picture each.
        name: Name of the series: its lines are the metrics ``NAME/PLACE``.
        place: What a place is.
        where: Factors and levels of the settings that are drawn; left out: all.
        most: Most lines of a picture: of more places some are left out, evenly.
        log_y: Whether the axis up goes by logarithm.
    """

    arms: list[str] = field(default_factory=list)
    name: str = ""
    place: str = ""
    where: dict[str, str] = field(default_factory=dict)
    most: int = 6
    log_y: bool = False

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The series."""
        return f"{metric_words(self.name)} during training"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named(self.arms, arms, "arm")
        if not self.arms or not self.name or self.most < 2:
            raise UserError("SeriesDuring: 'arms' and 'name' must not be empty, and 'most' at least 2")

    def charts(self, results: "Results") -> Iterator[Chart]:
        """See the base class."""
        for setting in results.settings:
            if not is_about(self.where, setting):
                continue
            for arm in self.arms:
                places = sorted(series_values(results, arm, setting, TRAINED, self.name))
                last = max(1, min(self.most, len(places)) - 1)
                chosen = (
                    dict.fromkeys(places[round(i * (len(places) - 1) / last)] for i in range(last + 1))
                    if places
                    else {}
                )
                values = {
                    f"{self.place} {place:g}": curve_values(results, arm, setting, TRAINED, f"{self.name}/{place:g}")
                    for place in chosen
                }
                if any(values.values()):
                    axes = Axis("optimizer step"), Axis(metric_words(self.name), log=self.log_y)
                    yield series_chart(titled(f"{self.title or self.default_title}: {arm}", setting), values, *axes)
