"""Intervals and tests, against numbers from tables and by hand."""

import math

import pytest

from lit_transformer.studies.statistics import holm, mean, paired


def test_the_interval_is_students() -> None:
    found = mean([1.0, 2.0, 3.0])
    assert (found.value, found.deviation, found.count) == (2.0, 1.0, 3)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2)
    assert math.isnan(mean([1.0]).half)


def test_pairs_see_what_means_hide() -> None:
    """Seeds differ a lot, the arms by a little and always: only pairs can tell."""
    baseline = [1.0, 5.0, 3.0, 9.0]
    found = paired(
        [value - 0.1 + shift for value, shift in zip(baseline, (0.01, 0.0, -0.01, 0.0), strict=True)], baseline
    )
    assert found.p < 0.001 and found.mean.high < 0
    assert paired(baseline, baseline).p == 1
    assert math.isnan(paired([1.0], [2.0]).p)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([math.nan, 0.02])[1] == 0.02
