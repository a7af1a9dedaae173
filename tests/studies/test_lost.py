"""Arms of which seeds diverge, or have no finite number: what is left of them must not flatter them."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from lit_transformer.errors import Diverged, UserError
from lit_transformer.recipe import read_recipe
from lit_transformer.recipe.tree import plain
from lit_transformer.studies.cells import Plan
from lit_transformer.studies.claims import FAILS, HOLDS, OPEN, UNKNOWN, Above, AtLeast, AtMost, Below
from lit_transformer.studies.engine import Engine
from lit_transformer.studies.parts import Probe
from lit_transformer.studies.reading import read_study
from lit_transformer.studies.report import write_report
from lit_transformer.studies.results import Results
from lit_transformer.studies.tables import troubles
from lit_transformer.studies.worker import Folder
from tests.studies.fake import BASE, Fake

STUDY = """\
study:
  question: Which arm is alive?
  recipe: base.yaml
  baseline: stable
  seeds: [1, 2, 3, 4]
  arms:
    stable: {model.lr: 0.5}
    better: {model.lr: 0.1}
    half: {model: {lr: 0.1, dies: 2}}
    dead: {model: {lr: 0.1, dies: 4}}
  steps:
    - {name: seen, verb: probe, probe: PositionLossProbe}
  measures: {loss: fit val/loss, at: seen loss_at/1}
"""


class Late(Fake):
    """Some seeds diverge after a validation that was finite, and better than anybody's; a probe is not finite once."""

    def fit(self, recipe: Path, folder: Path, start: Path | None) -> None:
        super().fit(recipe, folder, start)
        said = plain(read_recipe(recipe))
        if said["seed_everything"] <= said["model"].get("dies", 0):
            history = json.loads((folder / "history.json").read_text())
            history["metrics"] = {"val/loss": 1.0}
            (folder / "history.json").write_text(json.dumps(history))
            raise Diverged("the loss is not finite")

    def probe(self, probe: Probe, recipe: Path, checkpoint: Path) -> dict[str, float]:
        said = plain(read_recipe(recipe))
        wrong = said["seed_everything"] == 3 and said["model"]["lr"] == 0.5
        return {"loss_at/1": math.inf if wrong else 1.0 + said["seed_everything"] / 10}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("lost")
    (folder / "study.yaml").write_text(STUDY.replace("base.yaml", str(folder / "base.yaml")))
    (folder / "base.yaml").write_text(BASE)
    plan = Plan(read_study([str(folder / "study.yaml")]))
    assert Engine(plan, Folder(folder / "out"), Late(), 4, say=lambda line: None).run() == []
    return Results(folder / "out")


def test_what_was_logged_before_a_divergence_is_no_result(results: Results) -> None:
    loss = results.measure("loss")
    assert results.mean("dead", (), loss) is None and results.why("dead", (), loss) == "diverged"
    assert list(results.values("half", (), loss)) == [3, 4] and list(results.lost("half", (), loss)) == [1, 2]
    found = results.differences((), loss)
    assert "dead" not in found
    assert found["better"].p < 0.05 and math.isnan(found["half"].p) and math.isnan(found["half"].adjusted)


def test_survivors_show_nothing(results: Results) -> None:
    def below(arm: str, other: str) -> tuple[str, str]:
        verdict = Below("x", arm=arm, than=[other], measure="loss").verdict(results, ())
        return verdict.outcome, verdict.numbers

    assert below("better", "stable")[0] == HOLDS and below("stable", "better")[0] == FAILS
    assert below("half", "stable")[0] == OPEN and "half diverged with 2 of 4 seeds" in below("half", "stable")[1]
    assert below("stable", "half")[0] == FAILS  # where both are alive it is worse
    assert below("dead", "stable") == (FAILS, "dead diverged with 4 of 4 seeds")
    assert below("stable", "dead") == (HOLDS, "dead diverged with 4 of 4 seeds")
    assert below("dead", "dead")[0] == UNKNOWN
    assert AtMost("x", arm="half", measure="loss", value=2.3).verdict(results, ()).outcome == OPEN
    assert AtMost("x", arm="half", measure="loss", value=1.3).verdict(results, ()).outcome == FAILS
    assert AtLeast("x", arm="dead", measure="loss", value=1).verdict(results, ()).outcome == UNKNOWN


def test_above_is_the_other_way_round_but_for_what_diverged(results: Results) -> None:
    found = {other: Above("x", arm="stable", than=[other], measure="loss").verdict(results, ()).outcome
             for other in ("better", "dead")}  # fmt: skip
    assert found == {"better": HOLDS, "dead": OPEN}
    assert Above("x", arm="better", than=["stable"], measure="loss").verdict(results, ()).outcome == FAILS


def test_a_number_that_is_not_finite_is_said_and_counts_as_lost(results: Results) -> None:
    verdict = AtMost("x", arm="stable", measure="at", value=2.0).verdict(results, ())
    assert verdict.outcome == OPEN and "stable is not finite with 1 of 4 seeds" in verdict.numbers
    table = troubles(results)
    assert table is not None and ["stable,seed=3", "seen", "not finite", "loss_at/1"] in [list(r) for r in table.rows]


def test_the_report_says_how_many_are_left(results: Results) -> None:
    write_report(results.folder)
    for name in ("summary.md", "report.html"):
        text = (results.folder / "report" / name).read_text()
        assert "(2 of 4 diverged)" in text and "(1 of 4 not finite)" in text
        assert "the mean is of the others and flatters the arm" in text


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"steps": 3}', '{"steps": {"fit": {"outcome": "done"}}}', "{"])
@pytest.mark.parametrize("name", ["study.json", "results/better,seed=1.json", "facts.json"])
def test_a_damaged_file_is_named_or_made_again(name: str, text: str, results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(results.folder, folder)
    (folder / name).write_text(text)
    plan = Plan(read_study([str(results.folder.parent / "study.yaml")]))
    engine = Engine(plan, Folder(folder), Late(), 1, say=lambda line: None)
    if name == "facts.json":
        assert engine.inspect() == Engine(plan, Folder(results.folder), Late(), 1, say=lambda line: None).inspect()
        return
    for read in (lambda: write_report(folder), *([engine.run] if name.startswith("results") else [])):
        with pytest.raises(UserError, match=re.escape(str(folder / name))):
            read()
