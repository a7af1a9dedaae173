"""Whole runs on two processes, sharded: the single process's losses and weights, and going on with other numbers."""

import csv
import os
import random
import socket
from pathlib import Path

import pytest
import torch

import lit_transformer.cli.training  # noqa: F401 here, so that the processes need not import it anew
from lit_transformer.checkpoints import read
from lit_transformer.cli.main import main
from tests.checkpoints import kills
from tests.cli.conftest import RECIPE

OVERLAYS = {"ddp": 2, "fsdp2": 2, "tensor_parallel": 1, "context_parallel": 1, "expert_parallel": 2}
"""Each with the number of ranks that see different data."""
LONG = ("context_parallel", "expert_parallel")
MIXTURE = ["--config", "overlays/feed_forward/mixture", "--model.network.layer.feed_forward.balance", "[]"]


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


def command(processes: int, *words: str) -> list[int]:
    """The command in so many processes, as torchrun starts them; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> int:
        if processes > 1:
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes),
                GROUP_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="t",
            )  # fmt: skip
        torch.set_num_threads(1)
        return main([*words, "--trainer.logger", "CSVLogger", "--trainer.log_every_n_steps", "1"])

    return [kills.wait(child) for child in [kills.forked(lambda rank=rank: one(rank)) for rank in range(processes)]]


def losses(folder: Path, column: str = "train/loss") -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


def close(one: Path, other: Path) -> None:
    a, b = (read(each / "checkpoints" / "last.ckpt") for each in (one, other))
    assert a["run_state"]["clock"] == b["run_state"]["clock"]
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(b["state_dict"][name], value, rtol=1e-3, atol=1e-5)
    for number, state in a["optimizer_states"][0]["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(b["optimizer_states"][0]["state"][number][key], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "strategy", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in OVERLAYS]
)
def test_the_single_process_curve(strategy: str, folder: Path) -> None:
    options = ["fit", "--config", "tiny.yaml", "--trainer.gradient_clip_val", "0.5", "--trainer.max_steps", "4"]
    options += MIXTURE if strategy == "expert_parallel" else []  # balanced, each rank's rows are by themselves
    assert command(1, *options, "--output", "alone") == [0]
    shared = ["--config", f"overlays/strategy/{strategy}", "--data.batch_size", str(8 // OVERLAYS[strategy])]
    assert command(2, *options, *shared, "--output", "shared") == [0, 0]
    assert losses(folder / "shared") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    assert losses(folder / "shared", "val/loss") == pytest.approx(losses(folder / "alone", "val/loss"), rel=1e-5)
    close(folder / "alone", folder / "shared")
    if strategy == "ddp":
        return
    more = ["--trainer.max_steps", "6", "--resume"]
    assert command(1, *options, *more, "--output", "alone") == [0]
    assert command(2, *options, *shared, *more, "--output", "shared") == [0, 0]
    close(folder / "alone", folder / "shared")


BATCH_NORM = ["--config", "overlays/norm/batch_norm"]
SMOOTHED = ["--model.loss", "{class_path: CrossEntropy, label_smoothing: 0.1}"]


@pytest.mark.parametrize(("strategy", "words"), [
    ("tensor_parallel", SMOOTHED),
    ("fsdp2", BATCH_NORM),
    pytest.param("ddp", [*BATCH_NORM, "--trainer.callbacks+", "Recompute"], marks=pytest.mark.slow),
])  # fmt: skip
def test_clipped_values_smoothing_and_statistics(strategy: str, words: list[str], folder: Path) -> None:
    """The saved statistics are those of the tokens of both ranks."""
    options = ["fit", "--config", "tiny.yaml", *words, "--trainer.gradient_clip_val", "1e-3"]
    options += ["--trainer.gradient_clip_algorithm", "value", "--model.optimizer", "{class_path: SGD, lr: 10}"]
    assert command(1, *options, "--output", "alone") == [0]
    shared = ["--config", f"overlays/strategy/{strategy}", "--data.batch_size", str(8 // OVERLAYS[strategy])]
    assert command(2, *options, *shared, "--output", "shared") == [0, 0]
    assert losses(folder / "shared") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    assert losses(folder / "shared", "val/loss") == pytest.approx(losses(folder / "alone", "val/loss"), rel=1e-5)
    close(folder / "alone", folder / "shared")


NUMERALS = """\
seed_everything: 1
model:
  class_path: Translation
  network:
    class_path: EncoderDecoder
    dims: {d_model: 16, n_layers: 1, n_heads: 2}
  optimizer: {class_path: torch.optim.AdamW, lr: 3e-3}
  metrics: []
data:
  class_path: TranslationData
  corpus: {class_path: Numerals, rows: 300}
  tokenizer: {class_path: BPE, vocab_size: 100}
  max_len: 64
  batches: {class_path: BudgetAcrossDevices, tokens: 1000}
  cache_dir: cache
trainer: {max_steps: 4, validate_every: 4, limit_val_batches: 2, accelerator: cpu, num_sanity_val_steps: 0}
"""


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["blocks", "pairs"])
def test_an_overlay_and_nothing_else(rows: str, folder: Path) -> None:
    """Batches of all devices together: the recipe is the same, and so are the losses, on one process and on two."""
    across = RECIPE.replace("batch_size: 8", "batch_size: {class_path: AcrossDevices, rows: 8}")
    (folder / "recipe.yaml").write_text(across if rows == "blocks" else NUMERALS)
    options = ["fit", "--config", "recipe.yaml", "--trainer.accumulate_grad_batches", "2"]
    assert command(1, *options, "--output", "alone") == [0]
    assert command(2, *options, "--config", "overlays/strategy/ddp", "--output", "shared") == [0, 0]
    assert len(losses(folder / "alone")) == 4
    assert losses(folder / "shared") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    assert losses(folder / "shared", "val/loss") == pytest.approx(losses(folder / "alone", "val/loss"), rel=1e-5)
    more = ["--trainer.max_steps", "6", "--resume", "--output", "shared"]  # the rest of it on one process again
    assert command(1, *options, *more) == [0]
