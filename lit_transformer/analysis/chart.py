"""Charts as SVG text: lines with bands, means with intervals, heat maps; every mark says its numbers when pointed at.

They need nothing but Python, look the same everywhere, and are the same text for the same numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lit_transformer.analysis.axes import (
    BOTTOM,
    LEFT,
    LEGEND,
    TOP,
    Axis,
    Scale,
    group,
    rule,
    svg,
    text_at,
    ticks_across,
    title_of,
)
from lit_transformer.analysis.means import shown

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#8c6d31", "#7f7f7f", "#a11d33",
    "#5f9e3f", "#2f4b7c",
)  # fmt: skip
"""Okabe and Ito's for people who see colours otherwise, then more."""

DASHES = ("", "6 3", "2 2")

CUT = "; the interval goes on below the axis"
"""Said of an interval whose end a logarithmic axis has no room for: it has an arrow."""


@dataclass(frozen=True)
class Point:
    """A mark.

    Args:
        x: Where it stands.
        y: Its value.
        low: Lower end of its interval; left out: none.
        high: Upper end.
        note: What it says when pointed at; left out: its numbers.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def spread(self) -> tuple[float, float]:
        """The interval, empty where there is none."""
        low = self.y if self.low is None or math.isnan(self.low) else self.low
        high = self.y if self.high is None or math.isnan(self.high) else self.high
        return low, high


@dataclass(frozen=True)
class Chart:
    """A finished picture.

    Args:
        title: Its title.
        svg: Its text.
    """

    title: str
    svg: str

    def save(self, path: str | Path) -> None:
        """Writes the file."""
        Path(path).write_text(self.svg + "\n", encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    x: Axis = Axis(),  # noqa: B008 frozen
    y: Axis = Axis(),  # noqa: B008 frozen
    size: tuple[float, float] = (760, 400),
    marks: bool = True,
) -> Chart:
    """Lines of points, each with the band of its intervals.

    Args:
        title: Written above.
        lines: Points by the name of their line, in the order of x; one without points keeps its colour free.
        x: The axis across.
        y: The axis up.
        size: Width and height.
        marks: Whether points have marks; without lines in between where a name begins with a dot.
    """
    shown = {name: [p for p in points if _fits(p, x, y)] for name, points in lines.items()}
    points = [point for each in shown.values() for point in each]
    frame = _Frame(title, size, x, y, [p.x for p in points], _values(points, y.log))
    parts: list[str] = []
    for number, (name, each) in enumerate(shown.items()):
        if not each:
            continue
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        between = not name.startswith(".")  # nothing lies between categories
        inner = _band(each, frame, colour) + _path(each, frame, colour, dash) if between else ""
        if marks:
            inner += "".join(_dot(p, name, frame, colour, x, hollow=bool(dash)) for p in each)
        parts.append(group(number, inner))
        frame.legend(number, name.removeprefix("."), colour, dash)
    return Chart(title, frame.text("".join(parts)))


def interval_chart(
    title: str,
    rows: Mapping[str, Sequence[Point]],
    label: str = "",
    log: bool = False,
    width: float = 760,
    reference: float | None = None,
) -> Chart:
    """A row for each name: its mean with the interval, and around it the single values.

    Args:
        title: Written above.
        rows: Of each name the mean (a point with an interval), then single values; only ``y`` and notes count. A name
            without points keeps its colour free.
        label: What is shown.
        log: Whether by logarithm.
        width: Pixels.
        reference: A value at which a line is drawn.
    """
    axis = Axis(label, log)
    kept = {name: [p for p in points if _fits(p, Axis(), axis)] for name, points in rows.items()}
    values = _values([p for points in kept.values() for p in points], log)
    values += [] if reference is None else [reference]
    longest = max((len(name) for name in rows), default=0)
    left = min(300.0, 24 + 7.0 * longest)
    height = TOP + BOTTOM + 26.0 * max(1, sum(map(bool, kept.values())))
    scale = Scale(values or [0.0, 1.0], log, left, width - 20)
    parts = [title_of(title), *ticks_across(scale, height, label, left, width - 20)]
    if reference is not None:
        at = scale(reference)
        parts.append(f'<path d="M{at:.1f} {TOP}V{height - BOTTOM:.1f}" stroke="currentColor" stroke-dasharray="3 3"/>')
    middle = TOP - 13
    for number, (name, points) in enumerate(kept.items()):
        if not points:
            continue
        middle += 26.0
        colour = COLOURS[number % len(COLOURS)]
        inner = text_at(left - 8, middle + 4, name[:40], anchor="end")
        for place, p in enumerate(points):
            low, high = p.spread
            note = escape(p.note or f"{name}: {shown(p.y)}")
            at = scale(p.y)
            if place:
                inner += f'<circle cx="{at:.1f}" cy="{middle:.1f}" r="2.5" fill="{colour}" fill-opacity="0.45">'
            else:
                inner += (
                    f'<path d="M{scale(low):.1f} {middle:.1f}H{scale(high):.1f}" stroke="{colour}" stroke-width="2"/>'
                )
                if scale.cuts(low):
                    inner += _arrow(scale(low), middle, (5, -4, 5, 4), colour)
                    note += escape(CUT)
                inner += f'<circle class="mark" tabindex="0" cx="{at:.1f}" cy="{middle:.1f}" r="5" fill="{colour}">'
            inner += f"<title>{note}</title></circle>"
        parts.append(group(number, inner))
    return Chart(title, svg(title, width, height, "".join(parts)))


def heat_chart(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[str, str], float | None],
    label: str = "",
    missing: Callable[[str, str], str] = lambda row, column: "",
    log: bool = False,
) -> Chart:
    """A cell for each row and column, the darker the higher, with its number.

    Args:
        title: Written above.
        rows: Names of the rows.
        columns: Names of the columns.
        values: By row and column; None is drawn as missing.
        label: What is shown.
        missing: What is written where there is no number.
        log: Whether colours go by logarithm.
    """
    left = 24 + 7.0 * max(map(len, rows), default=0)
    wide, high = max(64.0, 7.0 * max(map(len, columns), default=0) + 12), 30.0
    known = [v for v in values.values() if v is not None and math.isfinite(v) and (v > 0 or not log)]
    scale = Scale(known or [0.0, 1.0], log, 0.0, 1.0, room=0.0)
    parts = [title_of(title)]
    for j, column in enumerate(columns):
        parts.append(text_at(left + (j + 0.5) * wide, TOP + 14, column, anchor="middle"))
    for i, row in enumerate(rows):
        top = TOP + 22 + i * high
        parts.append(text_at(left - 8, top + high / 2 + 4, row, anchor="end"))
        for j, column in enumerate(columns):
            value = values.get((row, column))
            fits = value is not None and math.isfinite(value) and (value > 0 or not log)
            share = min(1.0, max(0.0, scale(value))) if fits and value is not None else 0.0
            fill = _mixed(share) if fits else "none"
            said = shown(value, 4) if fits and value is not None else missing(row, column)
            ink = "currentColor" if not fits else "#fff" if share > 0.5 else "#111"
            place = left + j * wide
            parts.append(
                '<g class="mark" tabindex="0">'
                f'<rect x="{place:.1f}" y="{top:.1f}" width="{wide - 2:.1f}" height="{high - 2:.1f}" '
                f'fill="{fill}" stroke="currentColor" stroke-opacity="0.2"><title>{escape(f"{row}, {column}: {said}")}'
                f"</title></rect>{text_at(place + wide / 2, top + high / 2 + 4, said, anchor='middle', fill=ink)}</g>"
            )
    width, height = max(left + wide * len(columns) + 20, 320.0), TOP + 22 + high * len(rows) + 30
    parts.append(text_at(left, height - 10, label))
    return Chart(title, svg(title, width, height, "".join(parts)))


class _Frame:
    """Axes, grid and legend of a chart of lines."""

    def __init__(
        self, title: str, size: tuple[float, float], x: Axis, y: Axis, across: Sequence[float], up: Sequence[float]
    ) -> None:
        self.title, (self.width, self.height) = title, size
        self.right = self.width - LEGEND
        self.x = Scale(across or [0.0, 1.0], x.log, LEFT, self.right)
        self.y = Scale(up or [0.0, 1.0], y.log, self.height - BOTTOM, TOP)
        self.parts = [title_of(title)]
        bottom = self.height - BOTTOM
        known = sorted(set(across))
        places = [self.x(v) for v in known]
        tight = any(after - before < 44 for before, after in zip(places, places[1:], strict=False))
        values = known if x.names or (x.log and len(known) <= 8 and not tight) else None
        self.parts += ticks_across(self.x, self.height, x.label, LEFT, self.right, x.names, values)
        for value in self.y.ticks():
            at = self.y(value)
            self.parts.append(rule(f"M{LEFT} {at:.1f}H{self.right:.1f}"))
            self.parts.append(text_at(LEFT - 8, at + 4, f"{value:.6g}", anchor="end"))
        middle = (TOP + bottom) / 2
        self.parts.append(f'<text transform="translate(16 {middle:.1f}) rotate(-90)" text-anchor="middle" '
                          f'font-size="12" fill="currentColor">{escape(y.label)}</text>')  # fmt: skip
        self.names: list[str] = []

    def legend(self, number: int, name: str, colour: str, dash: str) -> None:
        top = TOP + 8 + 18 * len(self.names)
        left = self.right + 14
        line = f'<path d="M{left:.1f} {top:.1f}h18" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
        shown = name if len(name) <= 20 else name[:19] + "…"
        self.names.append(f'<g class="key" data-series="{number}">{line}{text_at(left + 24, top + 4, shown)}'
                          f"<title>{escape(name)}</title></g>")  # fmt: skip

    def text(self, inner: str) -> str:
        height = max(self.height, TOP + 24 + 18 * len(self.names))
        return svg(self.title, self.width, height, "".join(self.parts) + inner + "".join(self.names))


def _fits(point: Point, x: Axis, y: Axis) -> bool:
    return (
        math.isfinite(point.x) and math.isfinite(point.y) and (point.x > 0 or not x.log) and (point.y > 0 or not y.log)
    )


def _values(points: Sequence[Point], log: bool) -> list[float]:
    """What an axis must have room for: by logarithm an interval that nearly reaches 0 is cut off."""
    values = [p.y for p in points]
    least = min(values, default=0.0) / 2 if log else -math.inf
    return values + [max(end, least) for p in points for end in p.spread]


def _band(points: Sequence[Point], frame: _Frame, colour: str) -> str:
    spread = [p for p in points if p.spread != (p.y, p.y)]
    if len(spread) < 2:
        return ""
    upper = [f"{frame.x(p.x):.1f} {frame.y(p.spread[1]):.1f}" for p in spread]
    lower = [f"{frame.x(p.x):.1f} {frame.y(p.spread[0]):.1f}" for p in reversed(spread)]
    return f'<path d="M{"L".join(upper + lower)}Z" fill="{colour}" fill-opacity="0.14"/>'


def _arrow(x: float, y: float, ends: tuple[float, float, float, float], colour: str) -> str:
    """The tip of an interval that goes on beyond the axis, its ends relative to the tip."""
    places = f"M{x + ends[0]:.1f} {y + ends[1]:.1f}L{x:.1f} {y:.1f}L{x + ends[2]:.1f} {y + ends[3]:.1f}"
    return f'<path d="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _path(points: Sequence[Point], frame: _Frame, colour: str, dash: str) -> str:
    if len(points) < 2:
        return ""
    places = "L".join(f"{frame.x(p.x):.1f} {frame.y(p.y):.1f}" for p in points)
    return f'<path d="M{places}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'


def _dot(p: Point, name: str, frame: _Frame, colour: str, x: Axis, hollow: bool) -> str:
    place = x.names[int(p.x)] if x.names else f"{p.x:.6g}"
    low, high = p.spread
    between = f" [{low:.4g}, {high:.4g}]" if (low, high) != (p.y, p.y) else ""
    note = p.note or f"{name.removeprefix('.')}, {place}: {shown(p.y)}{between}"
    bar = ""
    if between:
        at = frame.x(p.x)
        if frame.y.cuts(low):
            bar += _arrow(at, frame.y(low), (-4, -5, 4, -5), colour)
            note += CUT
        bar += f'<path d="M{at:.1f} {frame.y(low):.1f}V{frame.y(high):.1f}" stroke="{colour}" stroke-opacity="0.6"/>'
    fill = f'fill="{colour}"' + (f' fill-opacity="0.2" stroke="{colour}" stroke-width="1.5"' if hollow else "")
    return (
        f'{bar}<circle class="mark" tabindex="0" cx="{frame.x(p.x):.1f}" cy="{frame.y(p.y):.1f}" r="3.5" {fill}>'
        f"<title>{escape(note)}</title></circle>"
    )


def _mixed(share: float) -> str:
    """From near white to dark blue."""
    light, dark = (240, 245, 250), (8, 48, 107)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(light, dark, strict=True))
