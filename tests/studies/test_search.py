"""Searches: they learn, go on where they were, and keep what was told."""

import json
from pathlib import Path
from typing import Any

import pytest

from lit_transformer.errors import EnvironmentFault, UserError
from lit_transformer.studies.cells import Cell
from lit_transformer.studies.engine import Engine
from lit_transformer.studies.reading import read_study
from lit_transformer.studies.report import write_report
from lit_transformer.studies.results import Results
from lit_transformer.studies.search import run_search
from lit_transformer.studies.worker import Folder
from tests.studies.fake import BASE, Fake, without_costs

pytest.importorskip("optuna")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "search.yaml").write_text("study: {question: Which?, recipe: base.yaml, figures: [Intervals]}\n")
    (tmp_path / "base.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Unlucky(Fake):
    """A cell fails for a reason outside of it."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.cell = cell

    def fit(self, recipe: Path, folder: Path, start: Path | None) -> None:
        if folder.name.startswith(self.cell):
            raise EnvironmentFault("the disk is full")
        super().fit(recipe, folder, start)


def search(
    out: str = "out", trials: int = 24, kind: str = "BayesianSearch", program: Fake | None = None, high: float = 9.0,
    seed: int = 0,
) -> list[Cell]:  # fmt: skip
    ranges = (
        f"{{model.lr: {{class_path: Between, low: 0.01, high: {high}, log: true}}, "
        "model.parts: {class_path: OneOf, values: [a, b]}}"
    )
    said = f"{{class_path: {kind}, trials: {trials}, parallel: 3, seed: {seed}, ranges: {ranges}}}"
    study = read_study(["search.yaml"], [("study.search", said), ("study.seeds", "[1]")])
    folder = Folder(out)
    return run_search(study, folder, lambda plan: Engine(plan, folder, program or Fake(), 4, say=lambda line: None))


def trials(out: str = "out") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(out, "search.json").read_text())["trials"]
    return found


def test_it_finds_the_best_and_goes_on_where_it_was() -> None:
    search("broken", 9)
    first = {path.name: path.read_text() for path in Path("broken/results").iterdir()}
    for out in ("broken", "whole"):
        search(out)
    assert {path.name: path.read_text() for path in Path("broken/results").iterdir() if path.name in first} == first
    for out in ("broken", "whole"):
        write_report(out)
    summaries = [without_costs(Path(out, "report/summary.md").read_text()) for out in ("broken", "whole")]
    assert summaries[0] == summaries[1]
    assert trials("broken") == trials("whole") and len(trials("whole")) == 24
    results = Results("whole")
    losses = [outcome.number(results.measure("loss").first) or 9 for outcome in results.outcomes]
    assert len(losses) == 24 and sum(losses[12:]) < sum(losses[:12])  # it learns
    search("random", 3, "RandomSearch")
    assert len(Results("random").outcomes) == 3
    assert len({each["chosen"]["model.lr"] for each in trials("whole")}) == 24


def test_a_trial_that_failed_and_then_succeeds_changes_no_proposal() -> None:
    """What is proposed later was proposed without its number, and is trained already."""
    failed = search(trials=12, program=Unlucky("trial 010"))
    assert [cell.arm for cell in failed] == ["trial 010"]
    before = trials()
    assert before[10]["state"] == "failed" and all(each["state"] == "value" for each in before if each != before[10])
    assert search(trials=15) == []
    assert trials()[:12] == before and len(trials()) == 15
    results = Results("out")
    assert all(outcome.status == "done" for outcome in results.outcomes) and len(results.outcomes) == 15
    Path("out/results/trial 003,seed=1.json").unlink()
    search(trials=15)
    assert Results("out").outcomes[3].status == "done"


def test_a_trial_that_diverged_is_told_as_that() -> None:
    search(trials=12, high=1000.0)
    wild = [each for each in trials() if each["chosen"]["model.lr"] > 10]
    assert wild and all(each["state"] == "pruned" and each["value"] is None for each in wild)
    assert search(trials=15, high=1000.0) == []


def test_another_search_is_refused() -> None:
    search(trials=3)
    kept = Path("out/search.json").read_text()
    for changed, said in (({"high": 8.0}, "ranges"), ({"seed": 1}, "seed"), ({"kind": "RandomSearch"}, "class")):
        with pytest.raises(UserError, match=rf"out/search.json: .*another study.search \({said}\).*another --output"):
            search(trials=3, **changed)
    assert Path("out/search.json").read_text() == kept
    for text in ("{", "3", '{"search": {}, "trials": [1]}', kept.replace('"value"', '"x"'), kept.replace("lr", "l")):
        Path("out/search.json").write_text(text)
        with pytest.raises(UserError, match="out/search.json: ") as caught:
            search(trials=3)
        assert "\n" not in str(caught.value)
