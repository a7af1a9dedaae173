"""What looks at a run while it trains, on two real processes with the network spread over them."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lit_transformer.cli.training  # noqa: F401 here, so that the processes need not import it anew
from lit_transformer.checkpoints import read
from lit_transformer.cli.processes import Outcome, run_command
from lit_transformer.tasks.base import Task
from lit_transformer.training.curve import Curve
from tests.cli.conftest import RECIPE

FSDP2 = ["--config", "overlays/strategy/fsdp2"]
TENSOR = ["--config", "overlays/strategy/tensor_parallel"]
DDP = ["--config", "overlays/strategy/ddp"]

NUMERALS = """
seed_everything: 1
model:
  class_path: Translation
  network:
    class_path: EncoderDecoder
    dims: {d_model: 16, n_layers: 1, n_heads: 2}
    position: Sinusoidal
  optimizer: {class_path: AdamW, lr: 1.0e-2}
  decoding: {class_path: BeamSearch, beams: 1, extra: 3}
data:
  class_path: TranslationData
  corpus:
    class_path: ParallelFiles
    data_files: {train: [train.en, train.de], validation: [validation.en, validation.de]}
  tokenizer: Bytes
  batches: {class_path: TokenBudget, tokens: 256}
  cache_dir: cache
trainer: {max_steps: 2, validate_every: 2, accelerator: cpu, num_sanity_val_steps: 0}
"""


def one_of(quick: list[str], name: str, long: list[str], other: str) -> Any:
    """Both strategies; the second takes its time in the long run of the tests only."""
    return pytest.mark.parametrize("strategy", [quick, pytest.param(long, marks=pytest.mark.slow)], ids=[name, other])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = random.Random(0)
    words = "the quick brown fox jumps over lazy dog and runs home to sleep".split()
    for name, lines in (("train", 60), ("validation", 8), ("test", 8)):
        text = "\n".join(" ".join(draw.choice(words) for _ in range(12)) for _ in range(lines))
        (tmp_path / f"{name}.txt").write_text(text)
    for name, lines in (("train", 40), ("validation", 7)):
        pairs = [" ".join(draw.choice(words) for _ in range(draw.randint(1, 5))) for _ in range(lines)]
        (tmp_path / f"{name}.en").write_text("\n".join(pairs))
        (tmp_path / f"{name}.de").write_text("\n".join(pair.title() for pair in pairs))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "numerals.yaml").write_text(NUMERALS)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return tmp_path


def fit(ranks: int, *words: str) -> Outcome:
    return run_command(["fit", *words], ranks)


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0, "images": 0})
    found.Reload()
    return found


def text(folder: Path, tag: str) -> str:
    return str(events(folder).Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0])


@one_of(FSDP2, "fsdp2", TENSOR, "tensor_parallel")
def test_samples_are_those_of_a_single_process(strategy: list[str], folder: Path) -> None:
    options = ["--config", "tiny.yaml", "--trainer.max_steps", "2"]
    sampled = ["--trainer.callbacks", "[{class_path: Samples, prompts: ['the ', 'a'], max_new_tokens: 20}]"]
    rows = "8" if strategy == TENSOR else "4"
    assert fit(1, *options, *sampled, "--output", "alone").code == 0
    done = fit(2, *options, *strategy, "--data.batch_size", rows, *sampled, "--output", "spread")
    assert done.code == 0, done.said
    assert text(folder / "spread", "samples") == text(folder / "alone", "samples")


@one_of(FSDP2, "fsdp2", TENSOR, "tensor_parallel")
def test_translations_do_not_wait_for_each_other(strategy: list[str], folder: Path) -> None:
    """Texts are of unlike lengths, and one rank has a row more: a decoding step that all ranks must take would hang."""
    assert fit(1, "--config", "numerals.yaml", "--trainer.max_steps", "1", "--output", "alone").code == 0
    done = fit(2, "--config", "numerals.yaml", "--trainer.max_steps", "1", *strategy, "--output", "spread")
    assert done.code == 0, done.said
    found = events(folder / "spread")
    assert "val/bleu" in found.Tags()["scalars"] and "validation/alignment" in found.Tags()["images"]
    if strategy == TENSOR:  # the same rows were trained on
        assert text(folder / "spread", "validation/translations") == text(folder / "alone", "validation/translations")


@one_of(DDP, "ddp", FSDP2, "fsdp2")
def test_a_rank_that_holds_the_others_up_is_named(
    strategy: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_step: Any = Task.micro_batch_loss

    def slow(self: Task, *args: Any) -> Any:
        if self.global_rank == 1:
            time.sleep(1.5)
        return training_step(self, *args)

    monkeypatch.setattr(Task, "micro_batch_loss", slow)
    words = ["--trainer.max_steps", "2", "--trainer.log_every_n_steps", "2", "--trainer.limit_val_batches", "0"]
    done = fit(2, "--config", "tiny.yaml", *words, *strategy, "--output", "run")
    assert done.code == 0, done.said
    log = (folder / "run" / "run.log").read_text()
    assert "rank 1 on " in log and "they wait for it" in log and "rank 0 on" not in log, log
    found = events(folder / "run")
    own = [found.Scalars(f"throughput/own_seconds_{kind}")[-1].value for kind in ("min", "median", "max")]
    steps = [found.Scalars(f"throughput/step_seconds_{kind}")[-1].value for kind in ("min", "median", "max")]
    assert own[0] + 0.8 < own[2] and own[0] < own[1] < own[2] and min(steps) > 1.5  # all wait, one is busy
    total = found.Scalars("train/tokens_per_second")[-1].value
    assert total == pytest.approx(2 * found.Scalars("throughput/tokens_per_second_per_device")[-1].value)
    assert found.Scalars("throughput/memory_peak_mb")[-1].value > 50


@pytest.mark.slow
@one_of(FSDP2, "fsdp2", TENSOR, "tensor_parallel")
def test_averages_of_a_spread_network(strategy: list[str], folder: Path) -> None:
    options = ["--config", "tiny.yaml", "--trainer.callbacks+", "{class_path: EMA, decay: 0.9}"]
    options += ["--model.schedule", "Constant"]
    rows = "8" if strategy == TENSOR else "4"
    shared = [*strategy, "--data.batch_size", rows]
    assert fit(1, *options, "--trainer.max_steps", "6", "--output", "alone").code == 0
    assert fit(2, *options, *shared, "--output", "spread").code == 0
    done = fit(2, *options, *shared, "--trainer.max_steps", "6", "--resume=spread")
    assert done.code == 0, done.said
    one, other = (read(f"{name}/checkpoints/last.ckpt")["ema"] for name in ("alone", "spread"))
    assert one["updates"] == other["updates"] == 6 and one["weights"].keys() == other["weights"].keys()
    for name, value in one["weights"].items():
        torch.testing.assert_close(other["weights"][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [DDP, FSDP2], ids=["ddp", "fsdp2"])
def test_two_ranks_then_one_then_four(strategy: list[str], folder: Path) -> None:
    """No sample is repeated or left out, and the curve is that of a single process."""

    def run(ranks: int, steps: int, *words: str) -> None:
        rows = ["--data.batch_size", str(8 // ranks), "--trainer.max_steps", str(steps)]
        devices = [*strategy, "--trainer.devices", str(ranks)] if ranks > 1 else []
        curve = [
            "--trainer.log_every_n_steps",
            "1",
            "--trainer.callbacks+",
            f"{{class_path: Curve, path: {folder}/{ranks}-{steps}}}",
        ]
        done = fit(ranks, "--config", "tiny.yaml", *rows, *devices, *curve, *words)
        assert done.code == 0, done.said

    run(1, 7, "--output", "alone", "--model.schedule", "Constant")
    run(2, 2, "--output", "run", "--model.schedule", "Constant")
    run(1, 4, "--resume=run", "--model.schedule", "Constant")
    run(4, 6, "--resume=run", "--model.schedule", "Constant")
    run(2, 7, "--resume=run", "--model.schedule", "Constant")
    alone = Curve.read(folder / "1-7")
    parts = [step for name in ("2-2", "1-4", "4-6", "2-7") for step in Curve.read(folder / name)]
    assert [step.samples for step in parts] == [step.samples for step in alone]
    assert [step.loss for step in parts] == pytest.approx([step.loss for step in alone], rel=1e-4)
    seen = [sample for step in parts for sample in step.samples]
    assert len(seen) == len(set(seen)) == 7 * 8
    data = read("run/checkpoints/last.ckpt")["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert data["samples"] == 56
