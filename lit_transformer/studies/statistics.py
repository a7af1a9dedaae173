"""Means over seeds with intervals, and paired tests; by scipy."""

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


@dataclass(frozen=True)
class Difference:
    """An arm less its baseline, seed by seed.

    Args:
        mean: The mean difference with its interval.
        p: Two-sided p of the paired t-test; NaN for one seed, 1 where no seed differs.
        adjusted: The same after Holm's correction for all arms of the table.
    """

    mean: Mean
    p: float
    adjusted: float = math.nan

    @property
    def significant(self) -> bool:
        """Whether the adjusted p is below 0.05."""
        return self.adjusted < 1 - CONFIDENCE


def paired(arm: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Compares values of the same seeds."""
    differences = [a - b for a, b in zip(arm, baseline, strict=True)]
    found = mean(differences)
    if found.count < 2:
        return Difference(found, math.nan)
    if found.deviation == 0:
        return Difference(found, 1.0 if found.value == 0 else 0.0)
    from scipy.stats import ttest_rel

    return Difference(found, float(ttest_rel(arm, baseline).pvalue))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values (Holm, 1979); NaN stays NaN and does not count."""
    order = sorted((i for i, p in enumerate(values) if not math.isnan(p)), key=lambda i: values[i])
    result = [math.nan] * len(values)
    most = 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(order) - rank) * values[i]))
        result[i] = most
    return result
