"""Strategies that cannot work are one line that names the edit, before any process is started."""

import os
from pathlib import Path
from typing import Any

import pytest

from lit_transformer.cli.main import main

CONTEXT = ["--config", "overlays/strategy/context_parallel"]
SHARDED = ["--config", "overlays/strategy/tensor_parallel"]


@pytest.mark.parametrize(("words", "line"), [
    (["--trainer.strategy", "fsdp"], "is FSDP1, which is not supported; use --config overlays/strategy/fsdp2"),
    (["--trainer.strategy", "deepspeed_stage_2"], "pip install 'lit-transformer[deepspeed]'"),
    (["--config", "overlays/strategy/fsdp2", "--model.optimizer", "Muon"], "Muon needs whole matrices"),
    (["--config", "overlays/strategy/fsdp2", "--trainer.callbacks+", "LoRA"], "LoRA adds weights"),
    (["--config", "overlays/strategy/deepspeed_zero2"], "pip install 'lit-transformer[deepspeed]'"),
    (["--config", "overlays/strategy/fsdp2_tp", "--trainer.devices", "3"], "2 does not divide the 3 devices"),
    ([*SHARDED, "--model.network.dims.n_heads", "1"], "dims.n_heads: is 1, which 2 tensor-parallel devices do not"),
    ([*SHARDED, "--data.block_size", "15"], "data.block_size: 15 tokens cannot be shared by 2"),
    (["--trainer.devices", "2", "--data.batch_size", "{class_path: AcrossDevices, rows: 9}"],
     "data.batch_size.rows: 9 rows cannot be shared by 2 devices that see different data; valid: 8, 10; or devices: 1,"),
    (["--data.batch_size", "{class_path: AcrossDevices, rows: 0}"], "data.batch_size.rows: is 0, must be at least 1"),
    ([*SHARDED, "--config", "overlays/position/alibi"], "no plan for ALiBi"),
    ([*SHARDED, "--config", "overlays/norm/batch_norm"], "no plan for BatchNorm"),
    ([*SHARDED, "--config", "overlays/feed_forward/mixture"], "no plan for MixtureOfExperts"),
    ([*CONTEXT, "--config", "overlays/feed_forward/mixture"], "no plan for MixtureOfExperts"),
    ([*CONTEXT, "--config", "overlays/position/alibi"], "no plan for ALiBi"),
    ([*CONTEXT, "--model.network.kernel", "BlockedKernel"], "no plan for BlockedKernel"),
    ([*CONTEXT, "--data.block_size", "15"], "data.block_size: is 15, which 2 context-parallel devices cannot share"),
    (["--config", "overlays/strategy/expert_parallel"], "add --config overlays/feed_forward/mixture"),
    (["--config", "overlays/strategy/expert_parallel", "--config", "overlays/feed_forward/mixture",
      "--model.network.layer.feed_forward.n_experts", "3"], "n_experts: is 3, which 2 devices do not divide"),
    (["--config", "overlays/fp8"], "Float8 needs a GPU of compute capability 8.9 or more (L40, H100), and no GPU is"),
    (["--trainer.devices", "500"], "trainer.devices: is 500, more than this machine can have"),
    (["--trainer.accelerator", "gpu", "--trainer.devices", "2"], "trainer.accelerator: is gpu, but torch finds no"),
])  # fmt: skip
def test_one_line_before_any_process(
    words: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(os, "fork", started)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.mps.is_available", lambda: False)
    monkeypatch.setattr("subprocess.Popen.__init__", started)
    monkeypatch.setattr("importlib.util.find_spec", _without_deepspeed(__import__("importlib.util").util.find_spec))
    assert main(["fit", "--config", "tiny.yaml", *words, "--output", "run"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1] and len([each for each in said if each.startswith("lit-transformer: ")]) == 1
    assert not (folder / "run").exists()


def test_what_the_recipe_leaves_out_is_checked_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (folder / "tiny.yaml").read_text().replace("  block_size: 16\n", "")
    (folder / "tiny.yaml").write_text(recipe.replace("d_model: 16, n_layers: 1, n_heads: 2", "d_model: 12, n_heads: 3"))
    three = ["--config", "overlays/strategy/fsdp2", "--trainer.devices", "3", "--trainer.strategy.tensor_parallel_size"]
    assert main(["fit", "--config", "tiny.yaml", *three, "3", "--output", "run"]) == 2
    assert "data.block_size: 256 tokens cannot be shared by 3 tensor-parallel devices" in capsys.readouterr().err


def _without_deepspeed(find: Any) -> Any:
    return lambda name, *rest: None if name == "deepspeed" else find(name, *rest)


@pytest.mark.parametrize(("words", "line"), [
    (["--config", "overlays/strategy/deepspeed_zero2", "--model.optimizer", "Muon"], "Muon needs whole matrices"),
    (["--config", "overlays/strategy/deepspeed_zero1", "--model.optimizer", "torch.optim.Adafactor"], "Adafactor needs"),
    (["--config", "overlays/strategy/deepspeed_zero2", "--trainer.callbacks+",
      "lightning.pytorch.callbacks.LearningRateFinder"], "LearningRateFinder cannot try rates"),
    (["--config", "overlays/strategy/deepspeed_zero2", "--config", "overlays/fp16"], "DeepSpeed scales losses"),
    (["--config", "overlays/strategy/deepspeed_zero2", "--config", "overlays/bf16", "--trainer.callbacks+", "EMA"],
     "EMA averages float32"),
    (["--config", "overlays/strategy/deepspeed_zero2", "--trainer.callbacks+", "{class_path: NonFinite, max_skipped: 2}"],
     "NonFinite cannot skip"),
    (["--config", "overlays/strategy/deepspeed_zero2", "--trainer.gradient_clip_val", "1",
      "--trainer.gradient_clip_algorithm", "value"], "ZeRO clips by norm only"),
    (["--config", "overlays/strategy/deepspeed_zero2", "--trainer.strategy.offload", "all"], "all needs stage 3"),
    (["--trainer.strategy", "deepspeed_stage_2"], "use --config overlays/strategy/deepspeed_"),
])  # fmt: skip
def test_what_deepspeed_cannot_do(
    words: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("deepspeed")
    assert main(["fit", "--config", "tiny.yaml", *words, "--output", "run"]) == 2
    said = [each for each in capsys.readouterr().err.splitlines() if each.startswith("lit-transformer: ")]
    assert len(said) == 1 and line in said[0]
    assert not (folder / "run").exists()
