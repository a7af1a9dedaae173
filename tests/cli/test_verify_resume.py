"""``lit-transformer verify-resume`` finds what it is for, and says so."""

from pathlib import Path
from typing import Any

import pytest

from lit_transformer.cli.main import main
from lit_transformer.cli.verify_resume import verify_resume
from lit_transformer.errors import UserError
from tests.checkpoints.attacks import RECIPE


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("os.fsync", lambda _: None)
    text = tmp_path / "text.txt"
    text.write_text("what was will be again, to the last bit of it\n" * 60, encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    plain = RECIPE.replace("TEXT", str(text)).replace("CACHE", str(tmp_path / "cache"))
    path.write_text(plain.replace("position: RoPE", "layer: {class_path: Layer, dropout: 0.2}"), encoding="utf-8")
    return str(path)


def test_a_run_that_goes_on_exactly(recipe: str) -> None:
    extra = ["--trainer.accumulate_grad_batches", "2", "--trainer.callbacks+", "{class_path: EMA, decay: 0.9}"]
    report = verify_resume(["--config", recipe, "--data.num_workers", "2", *extra], steps=16, at=8)
    assert report.same, str(report)
    assert {"losses", "sample ids", "learning rates", "weights", "averaged weights"} <= {
        each.what for each in report.comparisons
    }
    assert report.comparisons[0].total == 32


def test_it_fails_when_the_generators_are_left_out(recipe: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("lit_transformer.training.generators.Generators.restore", lambda *_: None)
    assert main(["verify-resume", "--config", recipe, "--steps", "12", "--at", "6"]) == 1
    said = capsys.readouterr().out
    assert "THE RUNS DIFFER" in said and "losses" in said and "batch 6:" in said


def test_a_recipe_that_does_not_run_is_one_line(recipe: str, capsys: Any) -> None:
    assert main(["verify-resume", "--config", recipe, "--model.network.dims.n_heads", "3"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    with pytest.raises(UserError, match="--at 39"):
        verify_resume(["--config", recipe], steps=40, at=39)
