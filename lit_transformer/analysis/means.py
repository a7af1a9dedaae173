"""Means over seeds with their intervals, and how numbers are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Args:
        value: The mean.
        deviation: Standard deviation of a seed (n - 1); NaN for one seed.
        half: Half of the 95 % confidence interval of the mean, by Student's t; NaN for one seed.
        count: Number of seeds.
    """

    value: float
    deviation: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.half

    def __str__(self) -> str:
        return shown(self.value) + ("" if math.isnan(self.half) else f" ± {shown(self.half, 2)}")

    @property
    def rounded(self) -> str:
        """The same with no more digits than the interval makes sense of: 3.696 ± 0.028."""
        if math.isnan(self.half) or not 1e-6 < self.half < 100:
            return (
                str(self)
                if math.isnan(self.half) or self.half > 1
                else f"{shown(self.value, 3)} ± {shown(self.half, 2)}"
            )
        places = 1 - math.floor(math.log10(self.half))
        return f"{self.value:.{places}f} ± {self.half:.{places}f}"


def mean(values: Sequence[float]) -> Mean:
    """The mean of at least one value with its interval."""
    count = len(values)
    if len(set(values)) == 1:  # what differs by rounding alone does not differ
        return Mean(values[0], 0.0 if count > 1 else math.nan, 0.0 if count > 1 else math.nan, count)
    centre = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (count - 1))
    from scipy.stats import t

    half = float(t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * deviation / math.sqrt(count)
    return Mean(centre, deviation, half, count)


def shown(value: float, digits: int = 5, sign: str = "") -> str:
    """A number with so many digits that count; whole ones (bytes, tokens) and large ones are written out.

    Args:
        value: The number.
        digits: Digits of a number that is not whole.
        sign: ``+`` where a plus is written too.
    """
    if math.isfinite(value) and (10**digits <= abs(value) < 1e15 or (value == int(value) and abs(value) < 1e15)):
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.{digits}g}"
