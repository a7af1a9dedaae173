"""The engine, the report and the search, on runs that take no time."""

import csv
import filecmp
import json
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from lit_transformer.errors import Preempted, UserError
from lit_transformer.studies.cells import Plan
from lit_transformer.studies.claims import FAILS, Below
from lit_transformer.studies.engine import Engine
from lit_transformer.studies.reading import read_study
from lit_transformer.studies.report import write_report
from lit_transformer.studies.results import COSTS, Results
from lit_transformer.studies.tables import claims, split_measures, troubles
from lit_transformer.studies.worker import Folder, check_same
from tests.studies.fake import BASE, STUDY, Fake, without_costs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "base.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def engine(out: str = "out", program: Fake | None = None, processes: int = 4, **overrides: str) -> Engine:
    said = [(key.replace("__", "."), value) for key, value in overrides.items()]
    plan = Plan(read_study(["study.yaml"], said))
    return Engine(plan, Folder(out), program or Fake(), processes, say=lambda line: None)


def report(out: str = "out") -> dict[str, str]:
    """The files of the report without what time and memory say."""
    write_report(out)
    files = {path.name: path.read_text() for path in Path(out, "report").glob("*.csv")}
    rows = list(csv.DictReader(files.pop("results.csv").splitlines()))
    files["results"] = str([{key: value for key, value in row.items() if key not in COSTS} for row in rows])
    shown = {name: Path(out, "report", name).read_text() for name in ("summary.md", "report.html")}
    assert all("no test of it was made" in text for text in shown.values())
    return files | {name: without_costs(text) for name, text in shown.items()}


def test_the_answer_that_is_known(here: Path) -> None:
    assert engine().run() == []
    results = Results("out")
    assert len(results.outcomes) == 21 and results.study["dropped"] == 1
    found = results.differences((("max_steps", "2"),), results.measure("loss"))
    assert found["high"].mean.value == pytest.approx(0.9) and found["high"].significant
    assert found["same"].mean.value == 0 and found["same"].p == 1
    assert "wild" not in found  # it diverged: no number, and no average with those that did not
    table = claims(results)
    assert table is not None
    assert [row[2] for row in table.rows[::2]] == ["holds", "does not hold", "holds", "does not hold", "holds"]
    wild = Below("x", arm="low", than=["wild"], measure="loss").verdict(results, (("max_steps", "2"),))
    assert wild.outcome == "holds" and wild.numbers == "wild diverged with 3 of 3 seeds"
    assert Below("x", arm="wild", than=["low"], measure="loss").verdict(results, results.settings[0]).outcome == FAILS
    problems = troubles(results)
    assert problems is not None
    assert {(row[0].split(",")[0], row[1], row[2]) for row in problems.rows} == {
        ("low", "longer", "refused"), ("wild", "fit", "diverged"),
    }  # fmt: skip
    [high] = results.of("high", (("max_steps", "4"),))[:1]
    assert high.step("after")["metrics"]["val/loss"] == pytest.approx(2.2)  # of the recipe that was tuned


def test_the_folder_of_another_study_is_refused(here: Path) -> None:
    engine().run()
    Path("study.yaml").rename("other.yaml")
    other = Engine(Plan(read_study(["other.yaml"])), Folder("out"), Fake(), say=lambda line: None)
    with pytest.raises(UserError, match="out: is the folder of the study study; name another --output"):
        other.run()


def test_a_half_trained_cell_of_another_recipe_is_not_gone_on_with(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = engine()
    cell, results = study.plan.cells[0], study.folder.result(study.plan.cells[0])
    results.parent.mkdir(parents=True)
    for mark, checkpoint, refused in (("x", Path("c"), True), ("x", None, False), ("", Path("c"), False)):
        results.write_text(json.dumps({"steps": {}, "begun": mark or study.plan.fingerprint(cell)}))
        monkeypatch.setattr("lit_transformer.studies.worker._newest", lambda run, found=checkpoint: found)
        with pytest.raises(UserError, match="was begun by another recipe") if refused else nullcontext():
            check_same(study.plan, cell, study.folder.read(cell), study.folder)


def test_the_report_is_rebuilt_bit_for_bit_from_the_results(here: Path) -> None:
    engine().run()
    write_report("out")
    os.makedirs("copy")
    for name in ("study.json", "results"):
        os.rename(f"out/{name}", f"copy/{name}")
    write_report("copy")
    names = [str(path.relative_to("out/report")) for path in Path("out/report").rglob("*") if path.is_file()]
    assert len(names) == 4 + 10
    assert filecmp.cmpfiles("out/report", "copy/report", names, shallow=False) == (names, [], [])
    page = Path("out/report/report.html").read_text()
    assert "<rate>" not in page and "&lt;rate&gt;" in page and "http-equiv" in page


def test_a_report_that_cannot_be_computed_leaves_the_old_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine().run()
    write_report("out")
    before = {path: path.read_bytes() for path in Path("out/report").rglob("*.*")}
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("lit_transformer.studies.figures.heat_chart", lambda *rest: 1 / 0)
        write_report("out")
    assert {path: path.read_bytes() for path in Path("out/report").rglob("*.*")} == before
    known = json.loads(Path("out/study.json").read_text())
    Path("out/study.json").write_text(json.dumps(known | {"figures": known["figures"][:1]}))
    write_report("out")
    assert [path.name for path in sorted(Path("out/report/figures").iterdir())] == ["01.svg", "02.svg"]


def test_a_metric_that_nothing_logs_stops_it_after_the_first_cell(here: Path) -> None:
    running = engine(processes=1, study__measures__loss="fit val/losss", study__measures__seen="seen loss_at/7")
    with pytest.raises(UserError, match="fit has no metric 'val/losss'; did you mean val/loss.*is trained is kept"):
        running.run()
    assert len(list(Path("out/results").iterdir())) == 1
    with pytest.raises(UserError, match="fit has no metric 'val/losss'"):
        engine(study__measures__loss="fit val/losss").run()
    assert len(list(Path("out/results").iterdir())) == 1
    assert engine().run() == []
    known = json.loads(Path("out/study.json").read_text())
    Path("out/study.json").write_text(json.dumps(known | {"measures": known["measures"] | {"loss": "fit val/losss"}}))
    write_report("out")
    for name in ("summary.md", "report.html"):
        assert "no cell has a number for the measure loss (fit val/losss)" in Path("out/report", name).read_text()


def test_a_cell_that_another_process_works_on_has_not_failed(here: Path) -> None:
    said: list[str] = []
    running = engine()
    running.say = said.append
    running.folder.make()
    with running.folder.locked(running.plan.cells[3]) as free:
        assert free and running.run() == []
        assert running.elsewhere == [running.plan.cells[3]]
        assert any(line == f"{running.plan.cells[3].name}: in work elsewhere" for line in said)
        assert not any("FAILED" in line for line in said)
    assert "failure" not in running.folder.read(running.plan.cells[3])
    assert running.run() == [] and running.elsewhere == []


def test_tables_leave_out_what_is_not_there(here: Path) -> None:
    engine(study__measures__probed="longer val/loss", study__measures__tuning="after val/loss / fit val/loss",
           study__notes="{longer: four times as long, growth: what the double length costs}").run()  # fmt: skip
    several, single, nothing = split_measures(results := Results("out"))
    assert [each.name for each in several] == ["loss", "growth"] and nothing == [results.measure("probed")]
    assert {arm: [each.name for each in found] for arm, found in single.items()} == {"high": ["tuning"]}
    write_report("out")
    summary = Path("out/report/summary.md").read_text()
    cell = results.folder / "results" / "high,max_steps=2,seed=1.json"
    long = results.measure("growth")
    assert results.why("high", results.settings[0], long) == ""
    known = json.loads(cell.read_text())
    known["steps"]["long"]["metrics"]["val/loss"] = None
    cell.write_text(json.dumps(known))
    assert Results("out").why("high", results.settings[0], long) == "not finite"
    assert results.why("wild", results.settings[0], long) == "diverged"
    assert summary.count("no number") == 0 and "## high alone" in summary
    assert "four times as long" in summary and "what the double length costs" in summary
    assert "data.block_size x 4" in summary  # what the step does


def test_one_seed_has_no_test_and_says_so(here: Path) -> None:
    engine(study__seeds="[1]").run()
    write_report("out")
    summary, page = (Path("out/report", name).read_text() for name in ("summary.md", "report.html"))
    assert "one seed (1)" in summary and "With one seed there are no intervals" in summary
    assert not any(word in summary.split("## what it took")[0] for word in ("| sd |", "Holm", "| p |"))
    assert "95 % intervals" not in page


def test_a_note_of_a_claim_is_shown(here: Path) -> None:
    claim = "{class_path: AtMost, text: small, arm: low, measure: loss, value: 3, note: was 2 at first}"
    engine(study__claims=f"[{claim}]").run()
    write_report("out")
    assert "small (note: was 2 at first)" in Path("out/report/summary.md").read_text()


@pytest.mark.parametrize("key", ["notes", "notes.1"])
def test_notes_are_of_something(key: str, here: Path) -> None:
    with pytest.raises(UserError, match="no measure and no step" if key == "notes.1" else "expected words"):
        read_study(["study.yaml"], [(f"study.{key}", "nothing" if key == "notes.1" else "[1]")])


def test_killed_at_any_moment_it_ends_the_same(here: Path) -> None:
    engine("whole").run()
    for wanted in (0, 1, 4, 9, 15):
        child = os.fork()
        if not child:
            try:
                engine(program=Fake(seconds=0.02), processes=3).run()
            finally:
                os._exit(0)
        until = time.monotonic() + 60
        while len(list(Path("out/results").glob("*.json"))) < wanted and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    known = len(list(Path("out/results").glob("*.json")))
    assert 0 < known < 21  # or nothing was shown
    assert engine().run() == []
    assert report() == report("whole")


def test_a_cell_whose_process_dies_is_tried_again(here: Path) -> None:
    said: list[str] = []
    running = engine(program=Fake(die="same,max_steps=2,seed=2"))
    running.say = said.append
    assert running.run() == []
    assert any("killed by SIGKILL); once more" in line for line in said)
    assert any("left" in line and line.startswith("[1/21]") for line in said) and "all done" in said[-1]


def test_a_signal_stops_it_and_it_goes_on(here: Path) -> None:
    running = engine(program=Fake(seconds=0.05), processes=2)
    running.say = lambda line: os.kill(os.getpid(), signal.SIGTERM) if line.startswith("[2/21]") else None
    with pytest.raises(Preempted, match="stopped by SIGTERM; [23] of 21 cells are done"):
        running.run()
    assert engine().run() == []


def test_finished_cells_are_skipped_and_new_evaluations_train_nothing(here: Path) -> None:
    engine().run()
    trained = {path: path.stat().st_mtime_ns for path in Path("out/cells").rglob("history.json")}
    engine(study__steps="[{name: long, times: {data.block_size: 1.5}}]", study__claims="[]", study__figures="[]").run()
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert Results("out").outcomes[0].step("long")["metrics"]["val/loss"] == pytest.approx(2.15)
    with pytest.raises(UserError, match="was trained by another recipe"):
        engine(model__more="3").run()


@pytest.mark.parametrize(("key", "value", "said"), [
    ("study.seeds", "[]", "study.seeds: is empty"),
    ("study.arms", "null", "study.arms"),
    ("study.arms.low", "{modle: {lr: 1}}", "study.arms.low.modle: unknown key; did you mean model?"),
    ("study.left_out", "[{}]", "the grid is empty"),
    ("study.left_out", "[{arm: lo}]", "arm has no 'lo'"),
    ("study.grid.trainer.max_steps", "[]", "study.grid.trainer.max_steps: is an empty list"),
    ("study.grid.trainer.max_steps", "[2, 2]", "is there twice"),
    ("study.measures.loss", "fit", "study.measures.loss: is 'fit', expected"),
    ("study.measures.loss", "late val/loss", "there is no step 'late'"),
    ("study.measures.loss", "long test/loss", "long (validate) measures no 'test/loss': its metrics begin with val/"),
    ("study.measures.loss", "fit loss", "its metrics begin with train/ or val/"),
    ("study.measures.loss", "seen loss_att/3", "PositionLossProbe measures no 'loss_att/3'; did you mean loss_at?"),
    ("study.baseline", "los", "there is no arm 'los'; did you mean low?"),
    ("study.steps", "[{name: a, of: b}]", "a: no step 'b' comes before it"),
    ("study.steps", "[{name: a, probe: ShiftProbe}]", "come together"),
    ("study.claims", "[{class_path: AtMust, text: x}]", "unknown Claim 'AtMust'"),
    ("study.claims", "[{class_path: AtMost, text: x, arm: low, measure: los}]", "there is no measure 'los'"),
    ("study.figures", "[{class_path: Intervals, measure: los}]", "there is no measure 'los'"),
    ("study.steps+", "[{name: a, times: {data.size: 2}}]", "times.data.size: the recipe has no number there"),
    ("study.arms.same.model.parameters", "2000", "+100.0%, and study.match.parameters allows 5.0%"),
    ("study.arms.low.model.typo", "1", "model.typo: unknown key"),
    ("study.claims", "[{class_path: AtMost, text: x, arm: low, measure: loss, where: {max_steps: 3}}]",
     "no setting max_steps: '3'"),
    ("study.recipe", "nowhere.yaml", "no such file"),
    ("study.grid", "{trainer.max_steps: null, seed: {a: {model.x: 1}}}", "'seed' is what every cell has already; name"),
    ("study.grid", "{model.arm: [1, 2]}", "'arm' is what every cell has already"),
    ("study.grid", "{model.a.size: [1, 2], model.b.size: [1, 2]}", "there are two factors of the name 'size'"),
    ("study.grid.data.seed", "[11, 12]", "'seed' is what every cell has already"),
    ("study.grid.text", "{a: {data.seed: 11}, b: {data.seed: 12}}", "are the same recipe"),
    ("study.grid.model.size", "[1.0e-3, 0.001]", "low,max_steps=2,size=0.001,seed=1 are the same recipe"),
    ("study.seed_keys", "[]", "are the same recipe"),
    ("study.match.parameters", "-1", "study.match: parameters is -1, must not be negative"),
])  # fmt: skip
def test_what_is_refused_before_anything_trains(key: str, value: str, said: str, here: Path) -> None:
    with pytest.raises(UserError) as caught:
        Engine(Plan(read_study(["study.yaml"], [(key, value)])), Folder("out"), Fake(), say=lambda line: None).run()
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not list(here.glob("out/cells/*"))


def test_unequal_tokens_are_refused(here: Path) -> None:
    (here / "study.yaml").write_text(STUDY.replace("  grid: {trainer.max_steps: [2, 4]}\n", "").replace(
        '  left_out: [{arm: wild, max_steps: "4"}]\n', ""))  # fmt: skip
    with pytest.raises(UserError, match=r"same has 30 tokens, low 20: \+50.0%, and study.match.tokens allows 0.0%"):
        engine(study__arms__same__trainer__max_steps="3").run()
    assert engine(study__arms__same__trainer__max_steps="3", study__match__tokens="null").run() == []
