"""DeepSpeed's ZeRO on two CPU processes: the single process's curve, its checkpoints, and going on with other numbers."""

import os
from pathlib import Path

import pytest
import torch

from lit_transformer.checkpoints import read
from lit_transformer.cli.main import main
from lit_transformer.cli.processes import run_command
from tests.training.test_sharded_runs import close, command, folder, losses  # noqa: F401 folder is a fixture

OVERLAYS = ("deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3", "deepspeed_zero3_offload")
SHARED_OUT = ["--trainer.strategy.keep_whole", "0"]
"""Small as they are, weights are given back after each use, as those of a large network."""


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_single_process_curve(overlay: str, folder: Path) -> None:  # noqa: F811
    pytest.importorskip("deepspeed")
    options = ["fit", "--config", "tiny.yaml", "--trainer.gradient_clip_val", "0.5", "--model.schedule", "Constant"]
    options += ["--trainer.accumulate_grad_batches", "2"]
    alone = ["--data.batch_size", "4"]
    assert command(1, *options, *alone, "--trainer.max_steps", "4", "--output", "alone") == [0]
    shared = ["--config", f"overlays/strategy/{overlay}", *SHARED_OUT, "--data.batch_size", "2"]
    assert command(2, *options, *shared, "--trainer.max_steps", "4", "--output", "shared") == [0, 0]
    assert losses(folder / "shared") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    assert losses(folder / "shared", "val/loss") == pytest.approx(losses(folder / "alone", "val/loss"), rel=1e-5)
    _close(folder)
    more = ["--trainer.max_steps", "6", "--resume"]
    assert command(1, *options, *alone, *more, "--output", "alone") == [0]
    assert command(2, *options, *shared, *more, "--output", "shared") == [0, 0]
    _close(folder)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["deepspeed_zero2", "deepspeed_zero3"])
def test_two_ranks_then_one_then_four(overlay: str, folder: Path) -> None:  # noqa: F811
    pytest.importorskip("deepspeed")
    options = ["fit", "--config", "tiny.yaml", "--model.schedule", "Constant"]

    def run(ranks: int, steps: int, *words: str) -> None:
        devices = ["--config", f"overlays/strategy/{overlay}", "--trainer.devices", str(ranks)] if ranks > 1 else []
        rows = ["--data.batch_size", str(8 // ranks), "--trainer.max_steps", str(steps)]
        assert command(ranks, *options, *devices, *rows, *words) == [0] * ranks

    run(1, 7, "--output", "alone")
    run(2, 2, "--output", "shared")
    run(1, 4, "--resume", "--output", "shared")
    run(4, 6, "--resume", "--output", "shared")
    run(2, 7, "--resume", "--output", "shared")
    _close(folder)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["deepspeed_zero2", "deepspeed_zero3"])
def test_the_files_of_a_run_are_converted_and_evaluated(
    overlay: str,
    folder: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("deepspeed")
    options = ["fit", "--config", "tiny.yaml", "--trainer.max_steps", "2", "--data.batch_size", "4"]
    options += ["--trainer.callbacks+", "{class_path: EMA, decay: 0.5}"]
    shared = ["--config", f"overlays/strategy/{overlay}", *SHARED_OUT]
    assert command(2, *options, *shared, "--output", "shared") == [0, 0]
    assert command(2, *options, "--config", "overlays/strategy/ddp", "--output", "ddp") == [0, 0]
    ours, theirs = (read(f"{name}/checkpoints/last.ckpt") for name in ("shared", "ddp"))
    for name, value in theirs["ema"]["weights"].items():
        assert (ours["ema"]["weights"][name] - value).abs().max() < 1e-5
    assert losses(folder / "shared", "val/loss") == pytest.approx(losses(folder / "ddp", "val/loss"), rel=1e-5)
    assert losses(folder / "shared", "val/raw_loss") == pytest.approx(losses(folder / "ddp", "val/raw_loss"), rel=1e-5)
    path = "shared/checkpoints/last.ckpt"
    hashes = set()
    for source, target in ((path, "a.safetensors"), (path, "parts"), ("parts", "b.safetensors")):
        capsys.readouterr()
        assert main(["checkpoint", "convert", source, "--output", target]) == 0
        hashes.add(next(line for line in capsys.readouterr().out.splitlines() if "sha256" in line.lower()).split()[-1])
    assert len(hashes) == 1
    check = ["validate", "--config", "tiny.yaml", "--data.batch_size", "4", "--checkpoint", path]
    for overlay in ("deepspeed_zero2", "deepspeed_zero3"):
        done = run_command([*check, "--config", f"overlays/strategy/{overlay}"], 2)
        assert done.code == 0, done.said


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["deepspeed_zero2", "deepspeed_zero3"])
def test_what_is_frozen_keeps_its_digits(overlay: str, folder: Path) -> None:  # noqa: F811
    pytest.importorskip("deepspeed")
    options = ["fit", "--config", "tiny.yaml", "--trainer.max_steps", "2", "--data.batch_size", "4"]
    options += ["--trainer.callbacks+", "{class_path: Freeze, parts: [embedding]}"]
    assert command(1, *options, "--output", "alone") == [0]
    shared = ["--config", f"overlays/strategy/{overlay}", "--config", "overlays/bf16", *SHARED_OUT]
    assert command(2, *options, *shared, "--output", "shared") == [0, 0]
    one, two = (read(f"{name}/checkpoints/last.ckpt")["state_dict"] for name in ("alone", "shared"))
    frozen = [name for name in one if "embedding" in name]
    assert frozen and all(torch.equal(one[name], two[name]) for name in frozen)


def _close(folder: Path) -> None:  # noqa: F811
    close(folder / "alone", folder / "shared")
    assert not list(Path(folder).rglob("*.partial")) and os.path.isfile("shared/checkpoints/last.ckpt")
