"""Charts: well-formed, the same for the same numbers, and safe with any name."""

import math
import xml.etree.ElementTree as ElementTree

from lit_transformer.analysis.chart import COLOURS, CUT, Axis, Chart, Point, heat_chart, interval_chart, line_chart
from lit_transformer.analysis.means import shown
from lit_transformer.analysis.seed_charts import steps_chart

EVIL = '<script>alert("1")</script> & ]]>'


def circles(chart: Chart) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(chart.svg)  # raises where it is not well-formed
    return [(float(e.get("cx", 0)), float(e.get("cy", 0))) for e in root.iter() if e.tag.endswith("circle")]


def test_points_stand_where_their_numbers_say() -> None:
    points = [Point(1, 10), Point(10, 100, 50, 200), Point(100, 1000), Point(1000, math.nan)]
    chart = line_chart(EVIL, {EVIL: points}, Axis(EVIL, log=True), Axis(log=True))
    (x0, y0), (x1, y1), (x2, y2) = circles(chart)
    assert abs((x1 - x0) - (x2 - x1)) < 0.2 and abs((y1 - y0) - (y2 - y1)) < 0.2 and x0 < x1 and y0 > y1
    assert "<script>" not in chart.svg
    assert chart == line_chart(EVIL, {EVIL: points}, Axis(EVIL, log=True), Axis(log=True))


def test_a_short_stretch_of_a_logarithm_has_ticks() -> None:
    chart = line_chart("t", {"a": [Point(1, 0.998), Point(2, 1.012)]}, y=Axis(log=True))
    assert all(f">{tick}<" in chart.svg for tick in ("1", "1.005", "1.01"))


def test_nothing_and_one_value_can_be_drawn() -> None:
    for points in ([], [Point(3, 3)], [Point(0, 0, 0, 0)]):
        circles(line_chart("t", {"a": points}))
        circles(interval_chart("t", {"a": points}, reference=1.0))
    circles(heat_chart(EVIL, [EVIL, "b"], ["c"], {(EVIL, "c"): None, ("b", "c"): 2.0}, missing=lambda *_: "gone"))


def test_by_logarithm_an_interval_that_reaches_zero_is_cut_off() -> None:
    points = [Point(1, 10, -5, 25), Point(2, 20, 1e-9, 40)]
    for chart in (
        line_chart("t", {"a": points}, y=Axis(log=True)),
        interval_chart("t", {"a": points[:1], "b": points[1:]}, log=True),
    ):
        assert "nan" not in chart.svg and len(circles(chart)) == 2
        assert chart.svg.count(CUT.strip("; ")) == 2 and chart.svg.count('tabindex="0"') == 2  # said, not only drawn
    heights = [y for _, y in circles(line_chart("t", {"a": points}, y=Axis(log=True)))]
    assert heights[0] - heights[1] > 50  # the interval does not take all the room


def test_between_categories_there_is_neither_line_nor_band() -> None:
    points = [Point(0, 1, 0.5, 1.5), Point(1, 2, 1.5, 2.5)]
    assert 'fill-opacity="0.14"' in line_chart("t", {"a": points}).svg
    assert 'fill-opacity="0.14"' not in line_chart("t", {".a": points}).svg


def test_whole_numbers_are_written_out() -> None:
    assert shown(393216.0) == "393,216" and shown(1234567.5) == "1,234,568" and shown(3.14159265) == "3.1416"
    assert shown(-2e-7, 3, "+") == "-2e-07" and shown(2.0, sign="+") == "+2" and shown(math.nan) == "nan"
    assert "393,216" in interval_chart("t", {"a": [Point(0, 393216.0)]}).svg
    assert "393,216" in heat_chart("t", ["a"], ["b"], {("a", "b"): 393216.0}).svg


def test_an_arm_without_later_steps_is_not_a_dot_at_one() -> None:
    values = {"a": {"1L": {1: 2.0}, "2L": {1: 4.0}}, "ends": {"1L": {1: 2.0}, "2L": {}}}
    assert ">ends<" not in steps_chart("t", values, {"1L": 1, "2L": 2}, relative=True).svg
    assert ">ends<" in steps_chart("t", values, {"1L": 1, "2L": 2}).svg
    assert len(circles(steps_chart("t", values))) == 3


def test_a_line_without_points_keeps_its_colour_free() -> None:
    second = line_chart("t", {"a": [], "b": [Point(1, 1)]}).svg
    assert COLOURS[1] in second and COLOURS[0] not in second and ">a<" not in second
    assert COLOURS[0] not in interval_chart("t", {"a": [], "b": [Point(1, 1)]}).svg
