"""As in a notebook: every figure of a report in one call, from the folder of a study and from plain numbers."""

import json
from pathlib import Path

import pytest

from lit_transformer.analysis.seed_charts import arms_chart, series_chart, steps_chart
from lit_transformer.errors import UserError
from lit_transformer.studies.cells import Plan
from lit_transformer.studies.cost_figures import Against, PowerLaw
from lit_transformer.studies.engine import Engine
from lit_transformer.studies.figures import Curves, Intervals, NothingToDraw, Series, Steps
from lit_transformer.studies.reading import read_study
from lit_transformer.studies.report import draw, write_report
from lit_transformer.studies.together import SeriesDuring, Together
from lit_transformer.studies.worker import Folder
from tests.studies.fake import BASE, STUDY, Fake

BOTH = "{class_path: Together, arm: low, step: seen, series: {at: seen}, crossing: crossing, title: both}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "base.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    changes = [("study.figures+", f"[{BOTH}, {{class_path: PowerLaw, title: law}}]"), ("study.seeds", "[1, 2]"),
               ("study.measures.crossing", "fit val/loss"), ("study.steps", STEPS)]  # fmt: skip
    Engine(Plan(read_study(["study.yaml"], changes)), Folder("out"), Fake(), 4, say=lambda line: None).run()
    return tmp_path / "out"


STEPS = """[{name: long, times: {data.block_size: 2}}, {name: longer, arms: [low], times: {data.block_size: 4}},
{name: seen, verb: probe, arms: [low], probe: PositionLossProbe}]"""


def test_a_notebook_draws_what_the_report_shows(folder: Path) -> None:
    write_report(folder)
    shown = [path.read_text().strip() for path in sorted(folder.glob("report/figures/*.svg"))]
    charts = draw(folder)
    assert [chart.svg for chart in charts] == shown and len(charts) == 2 * 3 + 2 + 1 + 1 + 2
    assert [chart._repr_svg_() for chart in charts] == shown
    assert Curves().draw(folder)[0] in charts and Intervals().draw(folder)[1] in charts
    assert Steps(steps=["fit", "long"], relative=True).draw(folder)[0] in charts
    assert Series(step="seen", name="at").draw(folder)[0] in charts
    assert Against(fact="compute").draw(folder) == [chart for chart in charts if "compute" in chart.title.lower()
                                                    or "whole training" in chart.title]  # fmt: skip
    both = Together(arm="low", step="seen", series={"at": "seen"}, crossing="crossing").draw(folder)
    assert "crossing at 2.1" in both[0].svg
    with pytest.raises(NothingToDraw, match="at least 3 sizes"):
        PowerLaw().draw(folder)
    page = (folder / "report" / "report.html").read_text()
    assert "nothing is drawn for the figure PowerLaw (law): a power law in two variables wants" in page


def test_the_same_charts_of_plain_numbers() -> None:
    by_seed = {1: 2.0, 2: 3.0}
    assert "2.5 ± 6.4 (n = 2)" in arms_chart("t", {"a": by_seed}).svg
    assert "2.5 ± 6.4 (n = 2)" in series_chart("t", {"a": {64.0: [2.0, 3.0]}}).svg
    relative = steps_chart("t", {"a": {"1L": by_seed, "2L": {1: 4.0, 2: 6.0}}}, {"1L": 1, "2L": 2}, relative=True)
    assert "a, 2L: 2 ± 0 (n = 2)" in relative.svg


def test_a_series_during_training_has_a_line_for_some_of_its_places(folder: Path) -> None:
    for path in folder.glob("results/low,*.json"):
        found = json.loads(path.read_text())
        for layer in range(9):
            name, points = f"train/by_layer/{layer}", [[1, 1.0 + layer], [2, 2.0 + layer]]
            found["steps"]["fit"]["curves"][name] = points
            found["steps"]["fit"]["metrics"][name] = points[-1][1]
        path.write_text(json.dumps(found))
    figure = SeriesDuring(arms=["low", "high"], name="train/by_layer", place="layer", most=3, where={"max_steps": "2"})
    [chart] = figure.draw(folder)  # the other arm has none, the other setting is not asked for
    assert chart.title.endswith("low (max_steps 2)")
    assert [f"layer {i}" in chart.svg for i in range(9)] == [i in (0, 4, 8) for i in range(9)]
    with pytest.raises(UserError, match="no arm 'lower'"):
        SeriesDuring(arms=["lower"], name="x").check(["low"], [], [])
    with pytest.raises(UserError, match="must not be empty"):
        SeriesDuring(arms=["low"]).check(["low"], [], [])
