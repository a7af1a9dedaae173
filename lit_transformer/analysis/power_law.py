"""Fitting how loss falls with parameters and tokens (Hoffmann et al., 2022, arXiv:2203.15556, approach 3)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lit_transformer.analysis.axes import Axis
from lit_transformer.analysis.chart import Chart, Point, interval_chart, line_chart
from lit_transformer.analysis.means import mean
from lit_transformer.analysis.seed_charts import interval_of, middle, point

Run = tuple[float, float, float]
"""Parameters, tokens, loss."""


@dataclass(frozen=True)
class PowerLawFit:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Args:
        floor: E, the loss that no size reaches below.
        a: A.
        alpha: Exponent of the parameters.
        b: B.
        beta: Exponent of the tokens.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, parameters: float, tokens: float) -> float:
        """The loss."""
        return float(self.floor + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def best(self, compute: float) -> tuple[float, float]:
        """Parameters and tokens with the least loss among those with 6 N D = compute."""
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (compute / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, compute / 6 / parameters


def fit_power_law(runs: Sequence[Run], near: PowerLawFit | None = None) -> PowerLawFit:
    """Least squares of the logarithms of losses, robust (Huber), from several starts.

    Args:
        runs: At least five, of at least two sizes and two numbers of tokens.
        near: A fit of nearly the same runs, to start from alone.

    Raises:
        ValueError: Too few.
    """
    from scipy.optimize import least_squares

    if len(runs) < 5 or len({n for n, _, _ in runs}) < 2 or len({d for _, d, _ in runs}) < 2:
        raise ValueError("a power law in two variables wants at least 5 runs, 2 sizes and 2 numbers of tokens")
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
    bounds = ([-10, -50, 0.01, -50, 0.01], [10, 50, 2, 50, 2])
    fits = [least_squares(apart, start, bounds=bounds, loss="huber", f_scale=1e-2) for start in starts]
    floor, a, alpha, b, beta = min(fits, key=lambda fit: float(fit.cost)).x
    return PowerLawFit(math.exp(floor), math.exp(a), float(alpha), math.exp(b), float(beta))


def resampled_fits(groups: Sequence[Sequence[Run]], count: int = 50, seed: int = 0) -> list[PowerLawFit]:
    """Fits of groups (the seeds of a size and a number of tokens), each drawn again with replacement: the uncertainty.

    Args:
        groups: The runs of each group.
        count: Number of fits.
        seed: Of the drawing.

    Returns:
        The fits; none where a group has one run, which drawn again would always be the same.
    """
    if any(len(group) < 2 for group in groups):
        return []
    draw = np.random.RandomState(seed)
    whole = fit_power_law([run for group in groups for run in group])
    result = []
    for _ in range(count):
        runs = [group[i] for group in groups for i in draw.randint(0, len(group), len(group))]
        result.append(fit_power_law(runs, whole))
    return result


def power_law_charts(
    title: str, sizes: Mapping[str, Sequence[Sequence[Run]]], measure: str = "loss", beyond: float = 4.0
) -> list[Chart]:
    """Loss against tokens for every size with the fitted law, and where the next size should fall.

    The intervals come from fits to seeds drawn again. Where a size was trained with one seed there are none: nothing
    is known of how far another seed would have been off.

    Args:
        title: Written above.
        sizes: By name of the size: the runs of each number of tokens, one for each seed.
        measure: What the loss is called.
        beyond: How many times the largest run's compute the next size is asked for.

    Raises:
        ValueError: There are too few runs for a fit.
    """
    groups = [group for each in sizes.values() for group in each if group]
    runs = [run for group in groups for run in group]
    fit, fits = fit_power_law(runs), resampled_fits(groups)
    lines: dict[str, list[Point]] = {}
    for name, each in sizes.items():
        kept = sorted((group for group in each if group), key=lambda group: group[0][1])
        lines[f".{name}"] = [
            point(group[0][1], mean([loss for _, _, loss in group]), f"{name}, {group[0][1]:,.0f} tokens")
            for group in kept
        ]
        ends = [kept[0][0][1], kept[-1][0][1]] if kept else []
        span = [ends[0] * (ends[1] / ends[0]) ** (i / 16) for i in range(25)] if ends else []
        lines[f"{name} fitted"] = [Point(x, fit(kept[0][0][0], x)) for x in span]
    compute = max(6 * n * d for n, d, _ in runs) * beyond
    best = fit.best(compute)
    said = ", ".join(
        f"{words} {getattr(fit, name):.3g}{interval_of([getattr(each, name) for each in fits])}"
        for words, name in (("E", "floor"), ("alpha", "alpha"), ("beta", "beta"))
    )
    why = "" if fits else " (one seed: no intervals)"
    first = line_chart(
        f"{title}: {said}{why}", lines, Axis("tokens of training", log=True), Axis(measure), size=(900, 440)
    )
    row = Point(0, fit(*best), note=f"{best[0]:,.0f} parameters, {best[1]:,.0f} tokens: {fit(*best):.4g}")
    if fits:
        low, high = middle([each(*each.best(compute)) for each in fits])
        row = replace(row, low=low, high=high)
    next_size = interval_of([each.best(compute)[0] for each in fits])
    name = (
        f"next, for {compute:.2g} FLOPs: {best[0]:,.0f} parameters{next_size}, {best[1]:,.0f} tokens, "
        f"{measure} {fit(*best):.4g}{interval_of([each(*each.best(compute)) for each in fits])}"
    )
    return [first, interval_chart(name, {"predicted": [row]}, measure, width=900)]
