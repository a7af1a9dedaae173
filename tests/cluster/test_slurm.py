"""What `submit` and `study --slurm` write, on a real SLURM of this machine's."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_transformer.training.trace import Trace
from tests.cli.conftest import RECIPE
from tests.cluster import slurm
from tests.cluster.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing()),
              pytest.mark.timeout(900)]  # fmt: skip

STUDY = """
study:
  question: Does it matter?
  recipe: tiny.yaml
  baseline: small
  seeds: [1]
  arms: {small: {}, large: {model.optimizer.lr: 1.0e-2}}
  measures: {loss: fit val/loss}
"""


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Slurm]:
    """A cluster of two nodes, both this machine, with the tiny recipe."""
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(STUDY)
    with slurm.cluster(tmp_path, 2) as cluster:
        # nodes of one machine: their names are in no name service
        cluster.environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        yield cluster


def options(trace: Path, steps: int) -> list[str]:
    added = ["--trainer.callbacks+", f"{{class_path: Trace, path: {trace}}}", "--trainer.max_steps", str(steps)]
    return ["--config", "tiny.yaml", "--config", "overlays/strategy/ddp", *added, "--trainer.logger", "false",
            "--trainer.validate_every", str(steps // 2)]  # fmt: skip


def finished(cluster: Slurm, script: str, log: str) -> str:
    """Runs a script to its end; the job's log."""
    number = cluster.submit(script)
    job = cluster.wait(number, ("COMPLETED", "FAILED", "CANCELLED"))
    text = (cluster.folder / log.format(number)).read_text()
    assert job["JobState"] == "COMPLETED", text
    return text


def test_a_signal_sends_the_job_back_into_the_queue_and_nothing_is_lost(two: Slurm) -> None:
    """Two tasks on one node, against two nodes with one task each that nobody disturbs."""
    steps = 200
    one, other = two.folder / "one.trace", two.folder / "other.trace"
    spread = ["--trainer.devices", "1", "--trainer.num_nodes", "2", "--output", "spread.sbatch", "--runs", "spread"]
    two.do("lit-transformer", "submit", *options(one, steps), *spread)
    text = finished(two, "spread.sbatch", "tiny-{}.log")
    assert "preflight: 2 of 2 hosts answer" in text and "on 2 x cpu" in text

    two.do("lit-transformer", "submit", *options(other, steps), "--output", "job.sbatch", "--runs", "broken")
    number = two.submit("job.sbatch")
    deadline = time.monotonic() + 240
    while not other.exists() or len(other.read_text().splitlines()) < steps // 4:
        assert time.monotonic() < deadline, two.logs()
        time.sleep(0.05)
    two.do("scancel", "--signal=USR1", number)
    job = two.wait(number, ("PENDING", "COMPLETED", "FAILED"))
    assert job["JobState"] == "PENDING" and job["Restarts"] == "1", two.logs()
    reached = max(Trace.read(other))
    assert reached < steps - 1
    time.sleep(1)
    two.do("scontrol", "update", f"jobid={number}", "StartTime=now")  # it would wait for two minutes
    two.wait(number)
    log = (two.folder / f"tiny-{number}.log").read_text()
    assert "stopped by SIGUSR1" in log and "back into the queue" in log and "resum" in log
    assert json.dumps(Trace.read(other)) == json.dumps(Trace.read(one))


def test_a_node_that_does_not_answer_is_named(two: Slurm) -> None:
    words = ["--trainer.devices", "1", "--trainer.num_nodes", "2", "--trainer.logger", "false"]
    two.do("lit-transformer", "submit", *options(two.folder / "trace", 4), *words)
    with two.stopped("n2"):
        begun = time.monotonic()
        number = two.submit("tiny.sbatch")
        assert two.wait(number, ("COMPLETED", "FAILED"))["JobState"] == "FAILED"
        assert time.monotonic() - begun < 70
    log = (two.folder / f"tiny-{number}.log").read_text()
    assert "submit: n2: no answer" in log and not (two.folder / "runs").exists()


def test_a_cancelled_job_stays_cancelled(two: Slurm) -> None:
    trace = two.folder / "trace"
    two.do("lit-transformer", "submit", *options(trace, 5000))
    number = two.submit("tiny.sbatch")
    deadline = time.monotonic() + 200
    while not trace.exists():
        assert time.monotonic() < deadline, two.logs()
        time.sleep(0.1)
    two.do("scancel", number)
    time.sleep(8)
    assert two.wait(number, ("CANCELLED", "PENDING", "RUNNING", "FAILED"))["JobState"] == "CANCELLED"


def test_a_study_as_a_job_array(two: Slurm) -> None:
    two.do("lit-transformer", "study", "--config", "study.yaml", "--output", "out", "--slurm", "study.sbatch")
    number = two.submit("study.sbatch")
    for task in (0, 1):
        two.wait(f"{number}_{task}")
    two.do("lit-transformer", "report", "--output", "out")
    assert (two.folder / "out/report/report.html").exists()
    assert len((two.folder / "out/report/results.csv").read_text().splitlines()) == 3
