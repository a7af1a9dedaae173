"""Strategies that cannot work are one line that names the edit, before any process is started."""

import os
from pathlib import Path
from typing import Any

import pytest

from lit_transformer.cli.main import main


@pytest.mark.parametrize(("words", "line"), [
    (["--trainer.strategy", "fsdp"], "is FSDP1, which is not supported; use --config overlays/strategy/fsdp2"),
    (["--trainer.strategy", "deepspeed_stage_2"], "pip install 'lit-transformer[deepspeed]'"),
    (["--config", "overlays/strategy/fsdp2", "--model.optimizer", "Muon"], "Muon needs whole matrices"),
    (["--config", "overlays/strategy/fsdp2", "--trainer.callbacks+", "LoRA"], "LoRA adds weights"),
])  # fmt: skip
def test_one_line_before_any_process(
    words: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(os, "fork", started)
    monkeypatch.setattr("subprocess.Popen.__init__", started)
    monkeypatch.setattr("importlib.util.find_spec", _without_deepspeed(__import__("importlib.util").util.find_spec))
    assert main(["fit", "--config", "tiny.yaml", *words, "--output", "run"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1] and len([each for each in said if each.startswith("lit-transformer: ")]) == 1
    assert not (folder / "run").exists()


def _without_deepspeed(find: Any) -> Any:
    return lambda name, *rest: None if name == "deepspeed" else find(name, *rest)
