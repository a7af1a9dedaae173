"""Pictures of what loss costs: against FLOPs, parameters or time, and the law that sizes follow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_transformer.analysis.axes import Axis
from lit_transformer.analysis.chart import Chart
from lit_transformer.analysis.power_law import power_law_charts
from lit_transformer.analysis.seed_charts import against_chart
from lit_transformer.studies.drawing import FACTS, fact_of, measure_words, setting_name
from lit_transformer.studies.figures import NothingToDraw, StudyFigure

if TYPE_CHECKING:
    from lit_transformer.studies.results import Results


@dataclass
class Against(StudyFigure):
    """One measure against another (loss against FLOPs, or parameters): a point for each arm and setting.

    Args:
        title: Written above.
        measure: The measure up.
        fact: What is across: ``parameters``, ``tokens``, ``flops`` (of a token), ``compute`` (of the whole run),
            ``seconds`` (of training; on a CPU those that it computed).
        log_x: Whether the axis across goes by logarithm.
        log_y: Whether the axis up does.
    """

    measure: str = "loss"
    fact: str = "compute"
    log_x: bool = True
    log_y: bool = False

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """Both."""
        return f"{self.measure} against {FACTS[self.fact]}"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.measure], measures, "measure")
        self._named([self.fact], list(FACTS), "fact")

    def charts(self, results: "Results") -> Iterator[Chart]:
        """See the base class."""
        measure = results.measure(self.measure)
        values: dict[str, list[tuple[str, float, Sequence[float]]]] = {arm: [] for arm in results.arms}
        for arm in results.arms:
            for setting in results.settings:
                seeds, x = results.values(arm, setting, measure), fact_of(results, arm, setting, self.fact)
                if seeds and x is not None:
                    values[arm].append((setting_name(setting), x, list(seeds.values())))
        if any(values.values()):
            across = "CPU seconds of training" if self._on_cpu(results) else FACTS[self.fact]
            axes = Axis(across, log=self.log_x), Axis(measure_words(measure), log=self.log_y)
            yield against_chart(self.title or self.default_title, values, *axes)

    def _on_cpu(self, results: "Results") -> bool:
        return self.fact == "seconds" and results.clock != "seconds"


@dataclass
class PowerLaw(StudyFigure):
    """Loss against tokens for every size, with the fitted law L = E + A / N^alpha + B / D^beta and where next to go.

    Arms are sizes, settings numbers of tokens, at least three of each. Intervals over seeds come from fits to seeds
    drawn again, of one seed there are none; beside them stands how far the numbers move without one of the sizes or of
    the numbers of tokens, where there are four.

    Args:
        title: Written above.
        measure: The measure.
        beyond: How many times the largest run's compute the next size is asked for.
    """

    measure: str = "loss"
    beyond: float = 4.0

    @property
    def default_title(self) -> str:  # type: ignore[override]
        """The law."""
        return "fitted L = E + A / N^alpha + B / D^beta"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.measure], measures, "measure")

    def charts(self, results: "Results") -> Iterator[Chart]:
        """See the base class."""
        sizes: dict[str, list[list[tuple[float, float, float]]]] = {}
        for arm in results.arms:
            sizes[arm] = []
            for setting in results.settings:
                size, tokens = (fact_of(results, arm, setting, fact) for fact in ("parameters", "tokens"))
                values = results.values(arm, setting, results.measure(self.measure))
                if values and size and tokens:
                    sizes[arm].append([(size, tokens, value) for value in values.values()])
        try:
            yield from power_law_charts(self.title or self.default_title, sizes, self.measure, self.beyond)
        except ValueError as error:
            raise NothingToDraw(str(error)) from error
