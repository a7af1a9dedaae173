"""The power law of sizes and tokens: it is found again, and it says how far it can be trusted."""

import math
import random
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from lit_transformer.analysis.power_law import (
    EDGE,
    PowerLawFit,
    PowerLawFits,
    fit_power_law,
    left_out_fits,
    power_law_charts,
    resampled_fits,
)

LAW = PowerLawFit(1.5, 30.0, 0.4, 200.0, 0.35)


def runs(law: Any = LAW, seeds: int = 3, noise: float = 0.02) -> dict[str, list[list[tuple[float, float, float]]]]:
    draw = random.Random(0)
    return {f"d{n:g}": [[(n, d, law(n, d) + draw.gauss(0, noise)) for _ in range(seeds)] for d in (1e5, 1e6, 1e7)]
            for n in (1e4, 6e4, 2e5, 1e6)}  # fmt: skip


def test_it_is_found_again() -> None:
    found = fit_power_law([(n, d, LAW(n, d)) for n in (1e4, 3e4, 1e5, 3e5) for d in (1e5, 1e6, 1e7)])
    assert abs(found.alpha - 0.4) < 0.02 and abs(found.beta - 0.35) < 0.02 and abs(found.floor - 1.5) < 0.05
    assert found.edges == ()
    size, tokens = found.best(6 * 1e6 * 1e8)
    assert abs(size * tokens / 1e14 - 1) < 1e-6
    assert LAW(size, tokens) <= min(LAW(size * 1.3, tokens / 1.3), LAW(size / 1.3, tokens * 1.3)) + 1e-6
    for odd in (PowerLawFit(1, 1e20, 0.01, 1e-20, 0.01), PowerLawFit(1, 1e-20, 0.01, 1e20, 0.01)):
        assert math.isfinite(odd(*odd.best(1e12)))  # a fit at the edge breaks nothing


def test_of_one_seed_it_has_no_interval_over_seeds() -> None:
    sizes = {name: [group[:1] for group in each] for name, each in runs().items()}
    assert resampled_fits([group for each in sizes.values() for group in each]) == []
    charts = power_law_charts("t", sizes)
    for chart in charts:
        ElementTree.fromstring(chart.svg)
        assert "over seeds" not in chart.svg.replace("nothing is known over seeds", "")
    assert "one seed: nothing is known over seeds" in charts[1].svg and "one left out" in charts[1].svg
    with pytest.raises(ValueError, match="at least 3 sizes and 3 numbers"):
        power_law_charts("t", {name: each[:2] for name, each in sizes.items()})


def test_one_point_with_one_seed_takes_no_interval_from_the_others() -> None:
    sizes = runs()
    sizes["d60000"][1] = sizes["d60000"][1][:1]
    fits = PowerLawFits.of(sizes)
    between = fits.over_seeds(lambda each: each.alpha)
    assert len(fits.redrawn) == 50 and between is not None and between[0] < between[1]
    assert "1 of 12 points with one seed, not drawn again" in fits.warnings
    assert not any("one seed: nothing" in said for said in fits.warnings)


def test_what_a_fit_rests_on_is_said_beside_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest size lies off the law of the others: no seed shows that, leaving it out does."""
    sizes = runs(noise=0.002)
    sizes["d2e6"] = [[(2e6, d, LAW(2e6, d) + 0.4) for _ in range(3)] for d in (1e5, 1e6, 1e7)]
    fits = PowerLawFits.of(sizes)
    assert set(fits.left_out) == {f"without {name}" for name in sizes}  # of three numbers of tokens none can be
    assert "too few numbers of tokens to leave one out" in fits.warnings
    assert abs(fits.left_out["without d2e6"].alpha - LAW.alpha) < 0.1
    seeds, designs = fits.over_seeds(lambda each: each.alpha), fits.over_designs(lambda each: each.alpha)
    assert seeds is not None and designs is not None
    assert designs[1] - designs[0] > 3 * (seeds[1] - seeds[0])
    monkeypatch.setattr(PowerLawFits, "of", lambda sizes: fits)  # takes its time
    first, second, third = power_law_charts("t", sizes)
    assert " [" not in first.title and "over seeds (middle 95 % of 50 fits)" in second.title
    for chart, names in ((second, ("alpha", "beta")), (third, ("loss", "E"))):
        rows = [text for text in re.findall(r">([^<>]+)</text>", chart.svg) if text != chart.title]
        for words in ("over seeds", "one left out"):
            assert tuple(row.split(" [")[0] for row in rows if row.endswith(f"] {words}")) == names
    assert "without d2e6: " in second.svg and third.title.count("[") == 2
    assert left_out_fits({"a": [[(1.0, 1.0, 1.0)]], "b": [[(2.0, 2.0, 1.0)]]}) == {}


def test_a_floor_at_the_edge_is_said() -> None:
    sizes = runs(PowerLawFit(-0.5, 10.0, 0.2, 60.0, 0.25), seeds=1, noise=0)
    charts = power_law_charts("t", sizes)
    assert charts[0].title.endswith(f"; E {EDGE}")
    assert re.search(rf">{EDGE}: .*E without", charts[1].svg)
