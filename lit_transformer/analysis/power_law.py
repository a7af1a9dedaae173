"""Fitting how loss falls with parameters and tokens (Hoffmann et al., 2022, arXiv:2203.15556, approach 3)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lit_transformer.analysis.axes import Axis
from lit_transformer.analysis.chart import Chart, Point, interval_chart, line_chart
from lit_transformer.analysis.means import mean, shown
from lit_transformer.analysis.seed_charts import middle, point

Run = tuple[float, float, float]
"""Parameters, tokens, loss."""

Sizes = Mapping[str, Sequence[Sequence[Run]]]
"""By name of the size: the runs of each number of tokens, one for each seed."""

SEARCHED = {
    "E": (-10, 10, 1),
    "A": (-50, 50, 1),
    "alpha": (0.01, 2, 0.005),
    "B": (-50, 50, 1),
    "beta": (0.01, 2, 0.005),
}
"""Where each is searched, and how near an end it counts as there; E, A and B by their logarithms."""

DESIGN = {"size": "sizes", "number of tokens": "numbers of tokens"}
"""What can be left out, one and many."""

EDGE = "at the edge of what was searched"


@dataclass(frozen=True)
class PowerLawFit:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Args:
        floor: E, the loss that no size reaches below.
        a: A.
        alpha: Exponent of the parameters.
        b: B.
        beta: Exponent of the tokens.
        edges: Which of them sit at the edge of what was searched: the runs do not say how far they go on.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    edges: tuple[str, ...] = ()

    def __call__(self, parameters: float, tokens: float) -> float:
        """The loss."""
        return float(self.floor + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def best(self, compute: float) -> tuple[float, float]:
        """Parameters and tokens, at least one of each, with the least loss among those with 6 N D = compute."""
        apart = math.log(self.alpha * self.a) - math.log(self.beta * self.b)
        size = (apart + self.beta * math.log(compute / 6)) / (self.alpha + self.beta)
        parameters = math.exp(min(max(size, 0.0), math.log(compute / 6)))
        return parameters, compute / 6 / parameters


def fit_power_law(runs: Sequence[Run], near: PowerLawFit | None = None) -> PowerLawFit:
    """Least squares of the logarithms of losses, robust (Huber), from several starts.

    Args:
        runs: Of at least three sizes and three numbers of tokens: two can be had with any exponent, given the floor.
        near: A fit of nearly the same runs, to start from alone.

    Raises:
        ValueError: Too few.
    """
    from scipy.optimize import least_squares

    if not _enough(runs):
        raise ValueError("a power law in two variables wants at least 3 sizes and 3 numbers of tokens")
    parameters, tokens, losses = (np.array(values, dtype=float) for values in zip(*runs, strict=True))
    log_n, log_d, log_l = np.log(parameters), np.log(tokens), np.log(losses)

    def apart(x: np.ndarray) -> np.ndarray:
        floor, a, alpha, b, beta = x
        return np.asarray(np.log(np.exp(floor) + np.exp(a - alpha * log_n) + np.exp(b - beta * log_d)) - log_l)

    low, high = math.log(float(losses.min())), float(log_n.mean())
    starts = [
        (low + math.log(share), alpha * high, alpha, beta * float(log_d.mean()), beta)
        for share in (0.3, 0.8) for alpha in (0.2, 0.5) for beta in (0.2, 0.5)
    ]  # fmt: skip
    if near is not None:
        starts = [(math.log(near.floor), math.log(near.a), near.alpha, math.log(near.b), near.beta)]
    bounds = [low for low, _, _ in SEARCHED.values()], [high for _, high, _ in SEARCHED.values()]
    fits = [least_squares(apart, start, bounds=bounds, loss="huber", f_scale=1e-2) for start in starts]
    floor, a, alpha, b, beta = found = min(fits, key=lambda fit: float(fit.cost)).x
    edges = tuple(
        name for value, (name, (least, most, near)) in zip(found, SEARCHED.items(), strict=True)
        if value - least < near or most - value < near
    )  # fmt: skip
    return PowerLawFit(math.exp(floor), math.exp(a), float(alpha), math.exp(b), float(beta), edges)


def resampled_fits(groups: Sequence[Sequence[Run]], count: int = 50, seed: int = 0) -> list[PowerLawFit]:
    """Fits of groups (the seeds of a size and a number of tokens), each drawn again with replacement.

    They show how far another draw of the seeds would have moved the fit, and nothing of how far other sizes would
    have: see ``left_out_fits``.

    Args:
        groups: The runs of each group; one with one run stays as it is.
        count: Number of fits.
        seed: Of the drawing.

    Returns:
        The fits; none where no group has two runs: drawn again they would always be the same.
    """
    if all(len(group) < 2 for group in groups):
        return []
    draw = np.random.RandomState(seed)
    whole = fit_power_law([run for group in groups for run in group])
    result = []
    for _ in range(count):
        runs = [group[i] for group in groups for i in draw.randint(0, len(group), len(group))]
        result.append(fit_power_law(runs, whole))
    return result


def left_out_fits(sizes: Sizes) -> dict[str, PowerLawFit]:
    """Fits without one size, or without one number of tokens: what a fit rests on (a jackknife over the design).

    Args:
        sizes: The runs.

    Returns:
        The fits by what is left out (``without d16``, ``without 102,400 tokens``), of those that have enough runs left.
    """
    runs = [(name, run) for name, each in sizes.items() for group in each for run in group]
    kept = {f"without {name}": [run for of, run in runs if of != name] for name in sizes}
    for tokens in sorted({run[1] for _, run in runs}):
        kept[f"without {tokens:,.0f} tokens"] = [run for _, run in runs if run[1] != tokens]
    found = {}
    for name, left in kept.items():
        if len(left) < len(runs) and _enough(left):
            found[name] = fit_power_law(left)
    return found


@dataclass(frozen=True)
class PowerLawFits:
    """A fit with what is known of how far it can be trusted.

    Args:
        whole: Of all runs.
        redrawn: Of seeds drawn again; none where every group has one.
        left_out: Without one size or one number of tokens, by which.
        alone: Of how many groups one seed is known, so that it was not drawn again.
        groups: Number of groups.
        fixed: Of what, sizes or numbers of tokens, there are too few to leave one out.
    """

    whole: PowerLawFit
    redrawn: Sequence[PowerLawFit]
    left_out: Mapping[str, PowerLawFit]
    alone: int
    groups: int
    fixed: Sequence[str]

    @classmethod
    def of(cls, sizes: Sizes) -> "PowerLawFits":
        """Fits all of them.

        Raises:
            ValueError: There are too few runs for a fit.
        """
        groups = [group for each in sizes.values() for group in each if group]
        whole = fit_power_law([run for group in groups for run in group])
        alone = sum(len(group) == 1 for group in groups)
        fixed = [name for i, name in enumerate(DESIGN.values()) if len({group[0][i] for group in groups}) < 4]
        return cls(whole, resampled_fits(groups), left_out_fits(sizes), alone, len(groups), fixed)

    def over_seeds(self, of: Callable[[PowerLawFit], float]) -> tuple[float, float] | None:
        """The middle 95 % of a number over seeds drawn again; None where there are none."""
        return middle([of(each) for each in self.redrawn]) if self.redrawn else None

    def over_designs(self, of: Callable[[PowerLawFit], float]) -> tuple[float, float] | None:
        """The least and the most of a number where one size or number of tokens is left out; None where none can be."""
        values = [of(each) for each in self.left_out.values()]
        return (min(values), max(values)) if values else None

    def ranges(self, of: Callable[[PowerLawFit], float]) -> str:
        """Both in words: `` [0.19, 0.25] over seeds, [0.13, 0.39] one left out``."""
        said = [(self.over_seeds(of), OVER_SEEDS), (self.over_designs(of), LEFT_OUT)]
        return ",".join(f" [{shown(each[0], 3)}, {shown(each[1], 3)}] {words}" for each, words in said if each)

    @property
    def warnings(self) -> list[str]:
        """What to know before a number is believed."""
        said = []
        edges = [f"{name} {which}" for which, fit in self.left_out.items() for name in fit.edges]
        for name in SEARCHED:
            if count := sum(name in fit.edges for fit in self.redrawn):
                edges.append(f"{name} in {count} of {len(self.redrawn)} draws")
        if edges:
            more = f" and {len(edges) - 4} more" if len(edges) > 4 else ""
            said.append(f"{EDGE}: {', '.join(edges[:4])}{more}")
        if not self.redrawn:
            said.append("one seed: nothing is known over seeds")
        elif self.alone:
            said.append(f"{self.alone} of {self.groups} points with one seed, not drawn again")
        if self.fixed:
            said.append(f"too few {' and '.join(self.fixed)} to leave one out")
        return said


OVER_SEEDS, LEFT_OUT = "over seeds", "one left out"


def power_law_charts(title: str, sizes: Sizes, measure: str = "loss", beyond: float = 4.0) -> list[Chart]:
    """Loss against tokens for every size with the fitted law, its exponents, and where the next size should fall.

    Beside each number stand the middle 95 % of fits to seeds drawn again, and the range of fits without one size or
    one number of tokens, which is mostly far wider. Where every size was trained with one seed there is the latter
    alone: nothing is known of how far another seed would have been off.

    Args:
        title: Written above.
        sizes: The runs.
        measure: What the loss is called.
        beyond: How many times the largest run's compute the next size is asked for.

    Raises:
        ValueError: There are too few runs for a fit.
    """
    fits = PowerLawFits.of(sizes)
    fit = fits.whole
    measured: dict[str, list[Point]] = {}
    fitted: dict[str, list[Point]] = {}
    for name, each in sizes.items():
        kept = sorted((group for group in each if group), key=lambda group: group[0][1])
        measured[f".{name}"] = [
            point(group[0][1], mean([loss for _, _, loss in group]), f"{name}, {group[0][1]:,.0f} tokens")
            for group in kept
        ]
        ends = [kept[0][0][1], kept[-1][0][1]] if kept else []
        span = [ends[0] * (ends[1] / ends[0]) ** (i / 16) for i in range(25)] if ends else []
        fitted[f"{name} fitted"] = [Point(x, fit(kept[0][0][0], x)) for x in span]
    edges = f"; {', '.join(fit.edges)} {EDGE}" if fit.edges else ""
    said = f"{title}: E {fit.floor:.3g}, alpha {fit.alpha:.3g}, beta {fit.beta:.3g}{edges}"
    first = line_chart(
        said, {**fitted, **measured}, Axis("tokens of training", log=True), Axis(measure), size=(900, 440)
    )
    rows = dict([*_rows("alpha", fits, lambda each: each.alpha), *_rows("beta", fits, lambda each: each.beta)])
    words = [f"{OVER_SEEDS} (middle 95 % of {len(fits.redrawn)} fits)"] if fits.redrawn else []
    left = [one for one, many in DESIGN.items() if many not in fits.fixed]
    words += [f"without a {' or a '.join(left)} ({len(fits.left_out)} fits)"] if left else []
    second = interval_chart(
        f"exponents {' and '.join(words) or 'of one fit'}", rows, "; ".join(fits.warnings) or "exponent", width=900
    )
    compute = 6 * beyond * max(n * d for each in sizes.values() for group in each for n, d, _ in group)
    size, tokens = fit.best(compute)
    name = f"next, for {compute:.2g} FLOPs: {size:,.0f} parameters{fits.ranges(lambda each: each.best(compute)[0])}"
    rows = dict([*_rows(f"{measure}", fits, lambda each: each(*each.best(compute))),
                 *_rows("E", fits, lambda each: each.floor)])  # fmt: skip
    label = f"{measure} predicted with {tokens:,.0f} tokens: {fit(size, tokens):.4g}; with ever more: E {fit.floor:.3g}"
    return [first, second, interval_chart(name, rows, label, width=900)]


def _rows(
    name: str, fits: PowerLawFits, of: Callable[[PowerLawFit], float]
) -> Iterator[tuple[str, list[Point]]]:  # fmt: skip
    """The rows of one number: over seeds, and with one size or number of tokens left out, each fit a dot."""
    value = of(fits.whole)
    for found, words in ((fits.over_seeds(of), OVER_SEEDS), (fits.over_designs(of), LEFT_OUT)):
        if found is not None:
            between = f"[{shown(found[0], 3)}, {shown(found[1], 3)}] {words}"
            dots = [
                Point(0, of(each), note=f"{which}: {of(each):.4g}"
                      + (f"; {', '.join(each.edges)} {EDGE}" if each.edges else ""))
                for which, each in fits.left_out.items()
            ] if words == LEFT_OUT else []  # fmt: skip
            yield f"{name} {between}", [Point(0, value, *found, f"{name} {value:.4g} {between}"), *dots]
    if not fits.redrawn and not fits.left_out:
        yield name, [Point(0, value)]


def _enough(runs: Sequence[Run]) -> bool:
    return len({n for n, _, _ in runs}) >= 3 and len({d for _, d, _ in runs}) >= 3
