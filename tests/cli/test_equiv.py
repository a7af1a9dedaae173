"""``lit-transformer equiv`` calls equal what is, finds a mean of means, and never calls equal what did not run."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_transformer.cli.training  # noqa: F401 here, so that the processes need not import it anew
from lit_transformer.cli.equiv import TOLERANCES, compare, equivalence
from lit_transformer.cli.main import main
from lit_transformer.tasks.base import Task
from lit_transformer.training.curve import Step

RECIPE = """
seed_everything: 1
model:
  class_path: LanguageModeling
  network:
    class_path: DecoderOnly
    dims: {d_model: 16, n_layers: 2, n_heads: 2}
    layer: {class_path: Layer, dropout: 0.1}
  optimizer: {class_path: AdamW, lr: 1.0e-2}
data:
  class_path: LanguageModelingData
  corpus: {class_path: FilesCorpus, data_files: text.jsonl}
  tokenizer: Bytes
  block_size: 32
  batch_size: 4
  cache_dir: cache
trainer: {max_steps: 100, accelerator: cpu, gradient_clip_val: 1.0, callbacks: [{class_path: EMA, decay: 0.9}]}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    draw = random.Random(0)
    texts = [" ".join(draw.choice(["so", "it", "goes", "on"]) for _ in range(draw.randint(2, 20))) for _ in range(200)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return ["--config", "tiny.yaml"]


def test_every_arm_is_equal(recipe: list[str]) -> None:
    arms = ["accumulation", "packing", "recompute", "ddp 2", "fsdp2 2", "tensor parallel 2"]
    report = equivalence(recipe, steps=2, arms=arms)
    assert report.equal, str(report)
    assert {each.arm: each.verdict for each in report.results} == dict.fromkeys(arms, "equal"), str(report)
    assert not report.notes  # dropout is off


def test_a_mean_of_means_is_found(
    recipe: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole: Callable[..., Any] = Task.micro_batch_loss

    def mean_of_means(self: Task, total: Any, count: Any, window: Any, output: Any) -> Any:
        return whole(self, total, count, window, output) * 0 + total / count

    monkeypatch.setattr(Task, "micro_batch_loss", mean_of_means)
    words = [word for name in ("accumulation", "recompute", "ddp 2") for word in ("--arm", name)]
    assert main(["equiv", *recipe, "--steps", "2", *words]) == 1
    said = capsys.readouterr().out
    assert [line.split()[-1] for line in said.splitlines() if line.startswith("recompute")] == ["equal"]
    assert sum("DIFFERENT: step 1: gradient of" in line for line in said.splitlines()) == 2
    assert "2 DIFFERENT: accumulation, ddp 2" in said


def test_what_cannot_run_is_not_equal(recipe: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    muon = ["--model.optimizer", "Muon"]
    assert main(["equiv", *recipe, "--steps", "1", *muon, "--arm", "fsdp2 2", "--arm", "tensor parallel 2"]) == 2
    out, err = capsys.readouterr()
    assert out.count("not run: ") == out.count("Muon needs whole matrices") == 2 and "are equal" not in out
    assert "nothing could be compared" in err
    has = ["--trainer.callbacks+", "Recompute", "--trainer.callbacks+", "{class_path: Checkpointing, every_n_steps: 1}"]
    assert main(["equiv", *recipe, "--steps", "1", *has, "--arm", "recompute", "--arm", "accumulation"]) == 0
    assert "not run: the recipe has it already" in capsys.readouterr().out
    assert main(["equiv", *recipe, "--arm", "dpp 2"]) == 2
    assert main(["equiv", *recipe, "--model.network.dims.n_heads", "3"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["compile", "zero1 2", "zero2 2", "zero3 2", "context parallel 2"])
def test_the_long_arms_are_equal(arm: str, recipe: list[str]) -> None:
    if arm.startswith("zero"):
        pytest.importorskip("deepspeed")
    report = equivalence(recipe, steps=2, arms=[arm])
    assert [each.verdict for each in report.results] == ["equal"], str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["translation/numerals", "classification/stdlib_packages"])
def test_rows_of_unlike_lengths_are_equal(name: str) -> None:
    torch.set_num_threads(1)
    words = ["--config", name, "--config", "overlays/tiny_rows", "--model.optimizer", "AdamW"]
    arms = ["accumulation", "ddp 2", "fsdp2 2", "tensor parallel 2"]
    report = equivalence(words, steps=2, arms=arms)
    assert {each.arm: each.verdict for each in report.results} == dict.fromkeys(arms, "equal"), str(report)


def step(**changes: Any) -> Step:
    return Step(**{"loss": 2.0, "gradients": {"a": 1.0, "b": 1e-6}, "tokens": 10, "samples": frozenset({1}), **changes})


@pytest.mark.parametrize(("other", "found"), [
    (step(), ""),
    (step(loss=2.0001, gradients={"a": 1.001, "b": 2e-6}), ""),
    (step(loss=2.01), "step 1: loss 2.01 against 2"),
    (step(loss=float("nan")), "step 1: loss nan"),
    (step(gradients={"a": 1.1, "b": 1e-6}), "gradient of a 1.1 against 1"),
    (step(gradients={"a": 1.0, "b": 1e-6, "c": 0.1}), "gradient of c"),
    (step(gradients={"b": 1e-6}), "gradient of a 0 against 1"),
    (step(tokens=11), "11 target tokens against 10"),
    (step(samples=frozenset({2})), "other samples"),
])  # fmt: skip
def test_what_counts_as_different(other: Step, found: str) -> None:
    result = compare([step()], [other], TOLERANCES["32"])
    assert (result.verdict == "equal") == (found == "") and found in result.why
