"""What a study may name: nothing beyond the closed list, and packages of one's own where they are allowed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_transformer.cli.main import main
from lit_transformer.errors import UserError
from lit_transformer.studies.cells import Plan
from lit_transformer.studies.engine import Engine
from lit_transformer.studies.reading import read_study
from lit_transformer.studies.report import write_report
from lit_transformer.studies.results import Results
from lit_transformer.studies.worker import Folder
from tests.studies.fake import BASE, STUDY, Fake

OWN = """\
from lit_transformer.analysis.chart import Point, interval_chart
from lit_transformer.studies.claims import Claim, Verdict
from lit_transformer.studies.figures import StudyFigure
from lit_transformer.studies.parts import Probe

class Fixed(Probe):
    def __init__(self, value: float = 1.0) -> None:
        self.value = value
    def __call__(self, task, data):
        return {"fixed": self.value}

class Always(Claim):
    def verdict(self, results, setting):
        return Verdict("holds", "as ever")

class Dot(StudyFigure):
    def charts(self, results):
        yield interval_chart("a picture of mine", {"a": [Point(0, 1.0)]})
"""
PARTS = [
    ("study.steps+", "[{name: mine, verb: probe, probe: {class_path: mine_for_studies.Fixed, value: 2.0}}]"),
    ("study.claims", "[{class_path: mine_for_studies.Always, text: mine}]"),
    ("study.figures", "[mine_for_studies.Dot]"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "mine_for_studies.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine_for_studies", None)


def test_a_report_runs_no_code_that_its_folder_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Engine(Plan(read_study(["study.yaml"])), Folder("out"), Fake(), 4, say=lambda line: None).run()
    Path("evil_of_studies.py").write_text("open('ran', 'w').close()\nclass Evil:\n    pass\n")
    sys.path.insert(0, str(here))
    file = Path("out/study.json")
    for key, said in (
        ("figures", {"class_path": "evil_of_studies.Evil", "init_args": {}}),
        ("claims", {"class_path": "evil_of_studies.Evil"}),
        ("claims", {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}}),
        ("claims", {"class_path": "lit_transformer.studies.figures.Curves"}),
        ("figures", {"class_path": "lit_transformer.studies.results.Path", "init_args": {"title": "ran"}}),
    ):
        known = json.loads(file.read_text())
        file.write_text(json.dumps({**known, key: [said]}))
        assert main(["report", "--output", "out"]) == 2
        error = capsys.readouterr().err
        assert f"out/study.json: {key}[0]" in error and error.count("\n") == 1 and "Traceback" not in error, error
        file.write_text(json.dumps(known))
    assert not Path("ran").exists() and "evil_of_studies" not in sys.modules
    assert not list(Path("out").glob("report/*"))


def test_a_study_of_parts_of_ones_own(here: Path) -> None:
    with pytest.raises(UserError, match="run with --allow mine_for_studies"):
        read_study(["study.yaml"], PARTS)
    allow = ["mine_for_studies"]
    study = read_study(["study.yaml"], PARTS, allow)
    plan = Plan(study)
    Engine(plan, Folder("out"), Fake(), 4, say=lambda line: None).run()
    page = write_report("out", allow).read_text()
    assert "a picture of mine" in page and "as ever" in page
    assert study.steps[-1].probe(None, None) == {"fixed": 2.0}  # type: ignore[misc]
    with pytest.raises(UserError, match="run with --allow mine_for_studies"):
        write_report("out")
    cell = plan.cells[0]
    again = Plan(read_study(["study.yaml"], PARTS, allow))
    assert plan.fingerprint(cell, study.steps[-1]) == again.fingerprint(cell, again.study.steps[-1])
    assert len(Results("out", allow).claims) == 1
