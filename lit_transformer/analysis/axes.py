"""Axes of charts: from numbers to pixels, round values, names; and the pieces of SVG that charts are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, TOP, BOTTOM, LEGEND = 72.0, 34.0, 46.0, 168.0


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        label: What it shows.
        log: Whether by logarithm.
        names: Names of the values 0, 1, ... instead of numbers.
    """

    label: str = ""
    log: bool = False
    names: Sequence[str] = ()


class Scale:
    """From values to pixels.

    Args:
        values: What must fit in; by logarithm, what is below them all lies at the start.
        log: Whether by logarithm.
        start: The least value's place.
        end: The greatest value's place.
        room: Space left at both ends, as a share.
    """

    def __init__(self, values: Sequence[float], log: bool, start: float, end: float, room: float = 0.04) -> None:
        self.log = log
        known = [value for value in values if value > 0 or not log] or [1.0]
        low, high = self._of(min(known)), self._of(max(known))
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - (0.5 if not log else 0.1), high + (0.5 if not log else 0.1)
        space = (high - low) * room
        self.low, self.high, self.start, self.end = low - space, high + space, start, end

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def __call__(self, value: float) -> float:
        """The place of a value."""
        where = self._of(value) if value > 0 or not self.log else self.low
        if self.log:  # the lower end of an interval
            where = max(where, self.low)
        return self.start + (where - self.low) / (self.high - self.low) * (self.end - self.start)

    def cuts(self, value: float) -> bool:
        """Whether a value lies below what a logarithmic axis has room for."""
        return self.log and (value <= 0 or math.log10(value) < self.low - 1e-9)

    def ticks(self, most: int = 7) -> list[float]:
        """Round values within."""
        if not self.log:
            return _round(self.low, self.high, most)
        if self.high - self.low < 0.5:  # powers are too far apart, and nearly a straight scale
            return _round(10**self.low, 10**self.high, most)
        return self._powers(most)

    def _powers(self, most: int) -> list[float]:
        for parts in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            powers = range(math.floor(self.low) - 1, math.ceil(self.high) + 1)
            found = [part * 10.0**p for p in powers for part in parts]
            found = [value for value in found if self.low <= math.log10(value) <= self.high]
            if len(found) >= 3:
                return found[:: max(1, math.ceil(len(found) / most))]
        return []


def _round(low: float, high: float, most: int) -> list[float]:
    """At most so many round values between two."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    first = math.ceil(low / step)
    count = math.floor(high / step) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]


def ticks_across(
    scale: Scale,
    height: float,
    label: str,
    left: float,
    right: float,
    names: Sequence[str] = (),
    values: Sequence[float] | None = None,
) -> list[str]:
    """Ticks, grid lines and the label of the axis across; ``values`` are where ticks stand, where they are given."""
    bottom = height - BOTTOM
    parts = []
    for value in scale.ticks() if values is None else values:
        at = scale(value)
        parts.append(rule(f"M{at:.1f} {TOP}V{bottom:.1f}"))
        shown = names[int(value)] if names else f"{value:.6g}"
        parts.append(text_at(at, bottom + 16, shown, anchor="middle"))
    parts.append(text_at((left + right) / 2, height - 10, label, anchor="middle"))
    return parts


def rule(path: str) -> str:
    """A faint line."""
    return f'<path d="{path}" stroke="currentColor" stroke-opacity="0.13"/>'


def text_at(x: float, y: float, text: str, anchor: str = "start", fill: str = "currentColor") -> str:
    """A word."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="{fill}">{escape(text)}</text>'


def title_of(title: str) -> str:
    """The title."""
    return f'<text x="12" y="20" font-size="14" font-weight="600" fill="currentColor">{escape(title)}</text>'


def group(number: int, inner: str) -> str:
    """What belongs to one series, which the page shows alone."""
    return f'<g class="series" data-series="{number}">{inner}</g>'


def svg(title: str, width: float, height: float, inner: str) -> str:
    """The whole picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title, quote=True)}" class="chart" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="system-ui, sans-serif">{inner}</svg>'
    )
