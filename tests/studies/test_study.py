"""A study with a known answer; its report, rebuilt; what is refused before anything trains."""

import csv
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_transformer.studies.results import COSTS, Results
from tests.analysis.browser import PROGRAM, Browser
from tests.studies.fake import without_costs

REPORT = ("results.csv", "curves.csv", "summary.md", "report.html")


def table(folder: Path, costs: bool = False) -> list[dict[str, str]]:
    """The cells, without what time and memory say."""
    with open(folder / "report" / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if costs or key not in COSTS} for row in rows]


@pytest.mark.slow
def test_the_arm_that_must_win_wins_and_equal_arms_do_not_differ(finished: Path) -> None:
    results = Results(finished)
    loss = results.measure("loss")
    found = results.differences((), loss)
    assert found["still"].mean.low > 0.1 and found["still"].significant
    assert found["same"].mean.value == 0 and found["same"].p == 1 and not found["same"].significant
    verdicts = {row[0]: row[1] for row in _claims(finished)}
    assert verdicts == {
        "a rate learns": "holds",
        "two equal arms differ": "does not hold",
        "weights of another network are refused": "holds",
    }


def _claims(folder: Path) -> list[list[str]]:
    from lit_transformer.studies.tables import claims

    found = claims(Results(folder))
    assert found is not None
    return [list(row) for row in found.rows]


@pytest.mark.slow
def test_every_cell_is_an_ordinary_run(finished: Path, command: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.parent)
    rows = table(finished, costs=True)
    assert len(rows) == 9 and all(row["status"] == "done" for row in rows)
    assert {row["tokens"] for row in rows} == {str(12 * 8 * 16)} and len({row["parameters"] for row in rows}) == 1
    assert all(float(row["seconds"]) > 0 and float(row["memory"]) > 0 for row in rows)
    run = finished / "cells" / "one,seed=1"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert list(run.glob("events.out.tfevents.*"))
    code, out, _ = command("validate", "--checkpoint", run / "checkpoints" / "last.ckpt")  # type: ignore[operator]
    printed = dict(line.split() for line in out.splitlines() if line.startswith("val/"))
    assert code == 0 and float(printed["val/loss"]) == pytest.approx(float(rows[0]["fit:val/loss"]), rel=1e-5)


@pytest.mark.slow
def test_the_report_is_rebuilt_bit_for_bit(finished: Path, tmp_path: Path, command: object) -> None:
    shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("cells", "report", "logs", "recipes"))
    assert command("report", "--output", tmp_path / "copy")[0] == 0  # type: ignore[operator]
    names = [*REPORT, *(f"figures/{i:02}.svg" for i in range(1, 6))]
    same = filecmp.cmpfiles(finished / "report", tmp_path / "copy" / "report", names, shallow=False)
    assert same == (names, [], [])


@pytest.mark.slow
def test_finished_cells_are_skipped_and_a_new_evaluation_trains_nothing(
    finished: Path, here: Path, command: object
) -> None:
    shutil.copytree(finished, here / "out")
    before = (here / "out/results/one,seed=1.json").stat().st_mtime_ns
    code, _, err = command("study", "--config", "study.yaml", "--output", "out")  # type: ignore[operator]
    assert code == 0 and "9 of 9 cells are done already" in err
    assert (here / "out/results/one,seed=1.json").stat().st_mtime_ns == before
    for cell in (here / "out/results").glob("s*.json"):
        if "seed=1" not in cell.name:
            continue
        known = json.loads(cell.read_text())
        del known["steps"]["longer"]
        cell.write_text(json.dumps(known))
    code, _, err = command("study", "--config", "study.yaml", "--output", "out")  # type: ignore[operator]
    assert code == 0 and "7 of 9" in err
    assert table(here / "out") == table(finished)
    code, _, err = command("study", "--config", "study.yaml", "--output", "out", "--trainer.max_steps", 13)  # type: ignore[operator]
    assert code == 2 and "trained by another recipe" in err and err.count("\n") == 1


@pytest.mark.parametrize(("words", "said"), [
    (["--study.arms.one.model.network.dimz", "{d_model: 3}"], "model.network.dimz: unknown key; did you mean dims?"),
    (["--study.arms.one.model.optimizer.lr", "fast"], "model.optimizer.lr: expected"),
    (["--study.arms.same.model.network.dims.d_model", "32"], "study.match.parameters"),
    (["--model.schedule.warmup", "40"], "schedule.warmup: is 40, must be between 0 and trainer.max_steps 12"),
    (["--study.match.apart", "{flops: [nobody]}"], "there is no arm 'nobody'"),
    (["--study.match.apart", "{weight: [one]}"], "apart: there is no 'weight'"),
    (["--study.figures", "[{class_path: SeriesDuring, arms: [one], name: x, where: {lr: '1'}}]"],
     "SeriesDuring: where: there is no setting lr: '1'"),
    (["--study.grids", "{}"], "unknown key; did you mean grid?"),
    (["--cell", "9"], "the cells 0 to 8"),
    (["--foo", "1"], "unknown option '--foo'"),
])  # fmt: skip
def test_what_is_refused_before_anything_trains(words: list[str], said: str, here: Path, command: object) -> None:
    code, _, err = command("study", "--config", "study.yaml", "--output", "out", *words)  # type: ignore[operator]
    assert code == 2 and said in err, err
    assert err.count("lit-transformer: ") == 1 and "Traceback" not in err
    assert not list((here / "out").glob("cells/*"))


@pytest.mark.slow
def test_one_cell_of_a_job_array(here: Path, command: object) -> None:
    code, out, _ = command("study", "--config", "study.yaml", "--output", "out", "--slurm", "job.sh")  # type: ignore[operator]
    assert code == 0 and "#SBATCH --array=0-8" in out
    assert "lit-transformer study --config study.yaml --output out --threads" in out
    assert subprocess.run(["bash", "-n", "job.sh"], check=False).returncode == 0
    words = ["study", "--config", "study.yaml", "--output", "out"]
    assert command(*words, "--cell", 4)[0] == 0  # type: ignore[operator]
    assert [path.name for path in (here / "out/results").iterdir()] == ["same,seed=2.json"]
    assert command("report", "--output", "out")[0] == 0  # type: ignore[operator]
    assert [row["status"] for row in table(here / "out")].count("missing") == 8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_and_started_again_it_says_the_same(finished: Path, here: Path) -> None:
    """SIGKILL to the study at several moments, SIGTERM once; then to the end."""
    words = [sys.executable, "-m", "lit_transformer", "study", "--config", "study.yaml", "--output", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for seconds, number in ((7, signal.SIGKILL), (9, signal.SIGKILL), (9, signal.SIGTERM)):
        with open(here / "said.txt", "w") as said:
            process = subprocess.Popen([*words, "--processes", "2"], env=environment, stdout=said, stderr=said)
            time.sleep(seconds)
            process.send_signal(number)
            code = process.wait(60)
        assert code in (0, 75, -number), (here / "said.txt").read_text()
        time.sleep(0.5)
        left = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, check=False).stdout
        assert not left  # no cell outlives its study
    assert subprocess.run([*words, "--processes", "2"], env=environment, check=False).returncode == 0
    assert table(here / "out") == table(finished)
    assert (here / "out/report/curves.csv").read_bytes() == (finished / "report/curves.csv").read_bytes()
    for name in ("summary.md", "report.html"):
        mine, other = (without_costs((folder / "report" / name).read_text()) for folder in (here / "out", finished))
        assert mine == other


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
@pytest.mark.slow
def test_the_page_in_a_browser(finished: Path, tmp_path: Path) -> None:
    browser = Browser(1200, 900)
    try:
        browser.open(finished / "report" / "report.html")
        assert browser.run("document.querySelectorAll('svg.chart').length") == 5
        browser.run("document.querySelector('svg.chart .mark').scrollIntoView({block: 'center'})")
        x, y = browser.run("(() => { const r = document.querySelector('svg.chart .mark').getBoundingClientRect();"
                           " return [r.x + r.width / 2, r.y + r.height / 2]; })()")  # fmt: skip
        browser.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        browser.run("document.querySelector('svg.chart .mark').focus()")
        assert "one" in browser.run(
            "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
        )
        browser.run("document.activeElement.blur()")
        assert browser.run("document.getElementById('tip').hidden")
        browser.mouse("mouseMoved", x, y)
        browser.wait("!document.getElementById('tip').hidden")
        assert "one" in browser.run("document.getElementById('tip').textContent")
        browser.click("svg.chart .key")
        assert browser.run("document.querySelectorAll('.series.off').length") == 1
        assert not browser.complaints
        assert all(url.startswith(("file:", "data:", "about:")) for url in browser.requests)
    finally:
        browser.close()
