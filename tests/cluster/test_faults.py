"""A rank that is killed, stopped or fails: the job ends in time, names it in one line, and goes on from its checkpoint."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lit_transformer.cli.training  # noqa: F401 here, so that the processes need not import it anew
from lit_transformer.checkpoints import find_newest
from tests.cli.conftest import RECIPE
from tests.cluster.faults import OVERLAYS, Ended, job, killed, raised, stopped

TIMEOUT = 4.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = random.Random(0)
    words = "the quick brown fox jumps over lazy dog and runs home to sleep".split()
    for name, lines in (("train", 60), ("validation", 8), ("test", 8)):
        text = "\n".join(" ".join(draw.choice(words) for _ in range(12)) for _ in range(lines))
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(folder: Path, strategy: str, fault: Callable[[], None] | None = None, rank: int = 1, *more: str) -> Ended:
    words = ["--config", "tiny.yaml", "--config", OVERLAYS[strategy], "--trainer.rank_timeout", str(TIMEOUT)]
    return job(folder, *words, "--trainer.logger", "false", "--output", "run", *more, fault=fault, rank=rank)


def check(ended: Ended, what: str, code: int, rank: int, folder: Path) -> None:
    host = socket.gethostname()
    assert ended.seconds < TIMEOUT + 10, ended
    assert len(ended.own) == 1 and ended.own[0].startswith(f"lit-transformer: rank {rank} on {host}"), ended.said
    assert what in ended.own[0]
    assert not any("Traceback" in line for lines in ended.said for line in lines)
    assert [got for number, got in enumerate(ended.codes) if number != rank] == [code], ended
    assert (
        ended.own[0].removeprefix("lit-transformer: ").split("; ")[0].split(": ")[-1]
        in (folder / "run/run.log").read_text()
    )
    found = find_newest(folder / "run")
    assert found is not None and found.step == 2 and not found.skipped


FAULTS = [
    pytest.param("ddp", killed, "died without a word, killed or out of memory", 3, id="ddp-killed"),
    pytest.param("fsdp2", raised, "Broken: the disk of this rank is full of sand", 1, id="fsdp2-raised"),
    pytest.param("ddp", stopped, "its process is stopped", 3, id="ddp-stopped", marks=pytest.mark.slow),
    pytest.param("ddp", raised, "Broken: the disk", 1, id="ddp-raised", marks=pytest.mark.slow),
    pytest.param(
        "fsdp2", killed, "died without a word, killed or out of memory", 3, id="fsdp2-killed", marks=pytest.mark.slow
    ),
    pytest.param("fsdp2", stopped, "its process is stopped", 3, id="fsdp2-stopped", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("strategy", "fault", "what", "code"), FAULTS)
def test_a_rank_that_fails_is_named(
    strategy: str, fault: Callable[[], None], what: str, code: int, folder: Path
) -> None:
    check(fit(folder, strategy, fault), what, code, 1, folder)
    assert fit(folder, strategy, None, 1, "--resume").codes == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "fault", "what", "code"), FAULTS)
def test_the_first_rank_too(strategy: str, fault: Callable[[], None], what: str, code: int, folder: Path) -> None:
    """The store at which ranks meet is in its process."""
    ended = fit(folder, strategy, fault, 0)
    assert ended.seconds < TIMEOUT + 10 and len(ended.own) == 1, ended
    assert ended.own[0].startswith(f"lit-transformer: rank 0 on {socket.gethostname()}") and ended.codes[1] == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "number"), [(1, signal.SIGKILL), (0, signal.SIGSTOP)], ids=["killed", "first-stopped"]
)
def test_ranks_that_the_command_starts_itself(rank: int, number: int, folder: Path) -> None:
    """Without torchrun: Lightning's launcher starts the second rank as a child of the first."""
    words = [sys.executable, "-m", "lit_transformer.cli.main", "fit", "--config", "tiny.yaml", "--config", OVERLAYS["ddp"],
             "--trainer.rank_timeout", str(TIMEOUT), "--trainer.max_steps", "1000000", "--trainer.validate_every", "1000000",
             "--trainer.logger", "false", "--trainer.callbacks+", "{class_path: Checkpointing, every_n_steps: 10}",
             "--output", "run"]  # fmt: skip
    root = str(Path(__file__).parent.parent.parent)
    with (folder / "said").open("wb") as file:
        first = subprocess.Popen(words, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": root})
    try:
        deadline = time.monotonic() + 120
        while not (folder / "run/checkpoints/last.ckpt").exists():
            assert time.monotonic() < deadline and first.poll() is None, (folder / "said").read_text()
            time.sleep(0.1)
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        second = next(
            int(pid) for pid in children if b"lit_transformer.cli.main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill((first.pid, second)[rank], number)
        deadline = time.monotonic() + TIMEOUT + 10
        assert first.wait(TIMEOUT + 10) == (3 if rank else -signal.SIGKILL)
        while Path(f"/proc/{second}").exists():  # says who it was, where the first rank cannot
            assert time.monotonic() < deadline, (folder / "said").read_text()
            time.sleep(0.1)
    finally:
        first.kill()
    own = [line for line in (folder / "said").read_text().splitlines() if line.startswith("lit-transformer: ")]
    what = "was killed by SIGKILL" if rank else "its process is stopped"
    assert len(own) == 1 and own[0].startswith(f"lit-transformer: rank {rank} on ") and what in own[0], own
    assert find_newest(folder / "run") is not None
