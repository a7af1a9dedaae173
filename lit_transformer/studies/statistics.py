"""Paired tests of values over seeds; by scipy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_transformer.analysis.means import CONFIDENCE, Mean, mean

ROUNDING = 1e-12
"""What differs by less does not differ: the order of additions."""


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
    if max(map(abs, differences)) < ROUNDING:
        differences = [0.0] * len(differences)
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


__all__ = ["CONFIDENCE", "Difference", "Mean", "holm", "mean", "paired"]
