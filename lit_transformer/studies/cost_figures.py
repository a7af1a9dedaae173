"""Pictures of what loss costs: against FLOPs, parameters or time, and the law that sizes follow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_transformer.analysis.chart import Axis, Chart, Point, interval_chart, line_chart
from lit_transformer.studies.figures import StudyFigure, fact_of, point, setting_name
from lit_transformer.studies.statistics import mean

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
    default_title = "what it costs"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.measure], measures, "measure")
        self._named([self.fact], ["parameters", "tokens", "flops", "compute", "seconds"], "fact")

    def charts(self, results: "Results") -> Iterator[Chart]:
        """See the base class."""
        measure = results.measure(self.measure)
        lines: dict[str, list[Point]] = {}
        for arm in results.arms:
            points = []
            for setting in results.settings:
                found, x = results.mean(arm, setting, measure), fact_of(results, arm, setting, self.fact)
                if found is not None and x is not None:
                    points.append(point(x, found, f"{arm} {setting_name(setting)}, {self.fact} {x:.4g}"))
            points.sort(key=lambda p: p.x)
            lines[arm if len(points) > 1 else f".{arm}"] = points
        if any(lines.values()):
            across = "CPU seconds" if self.fact == "seconds" and results.clock != "seconds" else self.fact
            axes = Axis(across, log=self.log_x), Axis(str(measure), log=self.log_y)
            yield line_chart(self.title or self.default_title, lines, *axes)


@dataclass
class PowerLaw(StudyFigure):
    """Loss against tokens for every size, with the fitted law L = E + A / N^alpha + B / D^beta and where next to go.

    Arms are sizes, settings numbers of tokens. The intervals come from fits to seeds drawn again.

    Args:
        title: Written above.
        measure: The measure.
        beyond: How many times the largest run's compute the next size is asked for.
    """

    measure: str = "loss"
    beyond: float = 4.0
    default_title = "fitted power law"

    def check(self, arms: Sequence[str], measures: Sequence[str], steps: Sequence[str]) -> None:
        """See the base class."""
        self._named([self.measure], measures, "measure")

    def charts(self, results: "Results") -> Iterator[Chart]:
        """See the base class."""
        from lit_transformer.analysis.power_law import fit_power_law, resampled_fits

        groups, lines = [], {}
        for arm in results.arms:
            points = []
            for setting in results.settings:
                size, tokens = (fact_of(results, arm, setting, fact) for fact in ("parameters", "tokens"))
                values = results.values(arm, setting, results.measure(self.measure))
                if values and size and tokens:
                    groups.append([(size, tokens, value) for value in values.values()])
                    points.append(point(tokens, mean(list(values.values())), f"{arm}, {tokens:,.0f} tokens"))
            if points:
                lines[f".{arm}"] = points
        runs = [run for group in groups for run in group]
        try:
            fit = fit_power_law(runs)
        except ValueError:
            return
        fits = resampled_fits(groups)
        for arm, points in list(lines.items()):
            size = next(fact_of(results, arm[1:], s, "parameters") for s in results.settings if results.of(arm[1:], s))
            ends = [points[0].x, points[-1].x]
            span = [ends[0] * (ends[1] / ends[0]) ** (i / 16) for i in range(25)]
            lines[f"{arm[1:]} fitted"] = [Point(x, fit(size or 1.0, x)) for x in span]
        spread = {name: _interval([getattr(each, name) for each in fits]) for name in ("floor", "alpha", "beta")}
        compute = max(6 * n * d for n, d, _ in runs) * self.beyond
        best = fit.best(compute)
        nexts = (
            _interval([each.best(compute)[0] for each in fits]),
            _interval([each(*each.best(compute)) for each in fits]),
        )
        title = (
            f"{self.title or self.default_title}: E {fit.floor:.3g} {spread['floor']}, alpha {fit.alpha:.2g} "
            f"{spread['alpha']}, beta {fit.beta:.2g} {spread['beta']}"
        )
        yield line_chart(title, lines, Axis("tokens", log=True), Axis(self.measure), size=(900, 440))
        row = Point(0, fit(*best), note=f"{best[0]:,.0f} parameters, {best[1]:,.0f} tokens: {fit(*best):.4g}")
        name = (
            f"next: {compute:.2g} FLOPs, {best[0]:,.0f} parameters {nexts[0]}, {best[1]:,.0f} tokens, loss {nexts[1]}"
        )
        yield interval_chart(name, {"predicted": [row]}, self.measure, width=900)


def _interval(values: Sequence[float]) -> str:
    """The middle 95 % of values drawn again."""
    ordered = sorted(values)
    cut = round(0.025 * len(ordered))
    return f"[{ordered[cut]:.3g}, {ordered[-1 - cut]:.3g}]"
