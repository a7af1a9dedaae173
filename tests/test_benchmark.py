"""The benchmark harness: ratios within a round, failures as rows, a table and a JSON file from a run of the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench import attention, harness, loop, seq2seq, train  # noqa: E402
from bench.harness import Contestant  # noqa: E402


def measured(name: str, seconds: list[float]) -> Contestant:
    return Contestant(name, seconds=seconds, cpu_seconds=seconds, peak_bytes=2**20, tokens=100)


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is ten times slower for one round changes no ratio."""
    ours, peer = measured("ours", [1.0, 10.0, 1.0]), measured("peer", [2.0, 20.0, 2.0])
    assert harness.ratio(ours, peer, "wall") == 0.5


def test_who_begins_rotates() -> None:
    three = [measured(name, []) for name in "abc"]
    assert ["".join(c.name for c in harness.rotated(three, i)) for i in range(4)] == ["abc", "bca", "cab", "abc"]


def test_a_failed_contestant_is_a_row() -> None:
    failed = Contestant("x-transformers", error="not installed: x_transformers")
    shown = harness.table([measured("ours", [0.5, 0.25]), failed], "cpu", ["floor", "ours"])
    assert "not installed: x_transformers" in shown
    assert "x ours" in shown and "x floor" not in shown
    assert "| 375.0 |" in shown and "| 267 |" in shown


def test_a_gated_layer_has_as_many_weights_as_a_plain_one() -> None:
    assert train.gated_size({"d_model": 384}) == 1024
    assert train.gated_size({"d_model": 768}) == 2048


@pytest.mark.parametrize("module", [train, seq2seq, attention, loop])
def test_every_contestant_has_a_description(module: object) -> None:
    assert all(callable(build) for build in module.CONTESTANTS.values())  # type: ignore[attr-defined]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_command_measures_and_writes(tmp_path: Path) -> None:
    output = tmp_path / "new" / "train.json"
    sizes = ("--size", "tiny", "--rounds", "2", "--precision", "bf16", "--output", str(output))
    done = benchmark("train", *sizes, "--contestants", "floor", "ours-gpt2", "ours-llama+malloc")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(output.read_text())
    rows = {row["name"]: row for row in result["contestants"]}
    assert all(len(row["seconds"]) == 2 and row["error"] is None for row in rows.values()), rows
    assert rows["ours-gpt2"]["loss"] > 0 and rows["ours-gpt2"]["parameters"] > 0
    assert "ours-llama+malloc" in done.stdout and "mallopt" in done.stdout
    assert str(tmp_path) not in json.dumps(result)


def test_an_unknown_contestant_is_named() -> None:
    done = benchmark("train", "--contestants", "gtp2")
    assert done.returncode == 2 and "gtp2" in done.stderr and "gpt2" in done.stderr
