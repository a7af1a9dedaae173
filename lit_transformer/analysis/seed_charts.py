"""Charts of what was measured with several seeds: the means with their intervals, of plain numbers."""

import math
from collections.abc import Mapping, Sequence

from lit_transformer.analysis.axes import Axis
from lit_transformer.analysis.chart import Chart, Point, interval_chart, line_chart
from lit_transformer.analysis.means import Mean, mean

Seeds = Mapping[int, float]
"""Values by seed."""


def point(x: float, found: Mean, name: str) -> Point:
    """A mean as a mark that says its numbers."""
    return Point(x, found.value, found.low, found.high, f"{name}: {found} (n = {found.count})")


def arms_chart(title: str, values: Mapping[str, Seeds], label: str = "", log: bool = False) -> Chart:
    """A row for each arm: the mean over seeds with its 95 % interval, and every seed.

    Args:
        title: Written above.
        values: Values by seed, by arm; an arm without values keeps its colour free.
        label: What is shown.
        log: Whether by logarithm.
    """
    rows: dict[str, list[Point]] = {}
    for arm, seeds in values.items():
        rows[arm] = [point(0, mean(list(seeds.values())), arm)] if seeds else []
        rows[arm] += [Point(0, value, note=f"{arm}, seed {seed}: {value:.5g}") for seed, value in seeds.items()]
    return interval_chart(title, rows, label, log)


def series_chart(
    title: str,
    values: Mapping[str, Mapping[float, Sequence[float]]],
    x: Axis = Axis(),  # noqa: B008 frozen
    y: Axis = Axis(),  # noqa: B008 frozen
    upright: Mapping[str, float] | None = None,
) -> Chart:
    """A line for each arm, the mean over seeds with its 95 % interval: loss by position, a metric during training.

    Args:
        title: Written above.
        values: The values of all seeds by place, by arm; an arm without values keeps its colour free.
        x: The axis across.
        y: The axis up.
        upright: Where lines stand upright, by name.
    """
    lines = {
        arm: [point(place, mean(at[place]), f"{arm}, {place:g}") for place in sorted(at)] for arm, at in values.items()
    }
    heights = [p.y for points in lines.values() for p in points]
    for name, place in (upright or {}).items() if heights else ():
        lines[name] = [Point(place, height, note=name) for height in (min(heights), max(heights))]
    return line_chart(title, lines, x, y)


def steps_chart(
    title: str,
    values: Mapping[str, Mapping[str, Seeds]],
    places: Mapping[str, float] | None = None,
    label: str = "",
    metric: str = "",
    relative: bool = False,
    log: bool = False,
) -> Chart:
    """A metric over steps that are one evaluation after the other, of longer and longer texts say; a line for each arm.

    Args:
        title: Written above.
        values: Of each arm the values by seed of each step, steps in order; an arm without keeps its colour free.
        places: Where each step stands; left out: one after the other, without a line between them.
        label: What places are.
        metric: What values are.
        relative: Whether values are divided by those of the first step, seed by seed. Arms that have no other step
            are not drawn then: they would all be 1.
        log: Whether the axis up goes by logarithm.
    """
    names = list(places or dict.fromkeys(step for steps in values.values() for step in steps))
    lines: dict[str, list[Point]] = {}
    for arm, steps in values.items():
        base: Seeds = steps.get(names[0], {}) if relative and names else {}
        points = []
        for number, step in enumerate(names):
            seeds = steps.get(step, {})
            kept = (
                [value / base[seed] for seed, value in seeds.items() if base.get(seed)] if relative else seeds.values()
            )
            if kept:
                points.append(point(places[step] if places else float(number), mean(list(kept)), f"{arm}, {step}"))
        alone = relative and len(points) == 1
        lines[arm if places else f".{arm}"] = [] if alone else points
    up = metric + (f", divided by that of {names[0]}" if relative and names else "")
    across = Axis(
        label, log=bool(places) and min((places or {}).values(), default=0) > 0, names=() if places else names
    )
    wide = 760.0 if places else max(760.0, 240 + 86.0 * len(names))
    return line_chart(title, lines, across, Axis(up, log=log), (wide, 400.0))


def against_chart(
    title: str,
    values: Mapping[str, Sequence[tuple[str, float, Sequence[float]]]],
    x: Axis = Axis(log=True),  # noqa: B008 frozen
    y: Axis = Axis(),  # noqa: B008 frozen
) -> Chart:
    """One number against another, loss against FLOPs: a mark for each setting of each arm.

    Args:
        title: Written above.
        values: By arm: name of the setting, place across, the values of all seeds.
        x: The axis across.
        y: The axis up.
    """
    lines = {}
    for arm, settings in values.items():
        points = [point(at, mean(seeds), f"{arm} {name}, {x.label} {at:.4g}") for name, at, seeds in settings]
        points.sort(key=lambda p: p.x)
        lines[arm if len(points) > 1 else f".{arm}"] = points
    return line_chart(title, lines, x, y)


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the middle 95 % of at least one value."""
    ordered = sorted(values)
    cut = math.floor(0.025 * len(ordered))
    return ordered[cut], ordered[-1 - cut]
