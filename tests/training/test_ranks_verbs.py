"""What else a recipe does on two ranks: predictions of all rows, other strategies on resume, a head that is not used."""

import json
from pathlib import Path

import pytest
import torch

from lit_transformer.checkpoints import read
from tests.training.test_sharded_runs import command, folder, losses  # noqa: F401 folder is a fixture

TINY = ["--config", "tiny.yaml", "--model.schedule", "Constant"]

LABELS = """\
seed_everything: 1
model:
  class_path: Classification
  network: {class_path: EncoderOnly, dims: {d_model: 16, n_layers: 1, n_heads: 2}, head: MaskedHead}
data:
  class_path: ClassificationData
  corpus: {class_path: FileRows, data_files: {train: train.jsonl, validation: validation.jsonl}}
  tokenizer: Character
  batches: {class_path: TokenBudget, tokens: 64}
  cache_dir: cache
trainer: {max_steps: 3, validate_every: 3, accelerator: cpu, num_sanity_val_steps: 0}
"""


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["ddp", "fsdp2", "tensor_parallel"])
def test_predictions_are_those_of_all_rows_in_order(overlay: str, folder: Path) -> None:  # noqa: F811
    assert command(1, "fit", *TINY, "--trainer.max_steps", "2", "--output", "run") == [0]
    words = ["predict", *TINY, "--checkpoint", "run", "--output"]
    assert command(1, *words, "one.jsonl") == [0]
    assert command(2, *words, "two.jsonl", "--config", f"overlays/strategy/{overlay}") == [0, 0]
    one, two = (
        [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()] for name in ("one", "two")
    )
    assert len(one) > 2 and [row["id"] for row in one] == [row["id"] for row in two]
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["log_likelihood"] == pytest.approx(ours["log_likelihood"], rel=1e-5)


@pytest.mark.slow
def test_ranks_that_share_rows_draw_alike_after_another_strategy(folder: Path) -> None:  # noqa: F811
    words = ["fit", *TINY, "--model.network.layer", "{class_path: Layer, dropout: 0.1}", "--output", "run"]
    assert command(2, *words, "--config", "overlays/strategy/ddp", "--trainer.max_steps", "2") == [0, 0]
    apart = [state["torch"] for state in read("run/checkpoints/last.ckpt")["run_state"]["generators"]]
    assert not torch.equal(*apart)
    tensor = ["--config", "overlays/strategy/tensor_parallel", "--trainer.max_steps", "4", "--resume"]
    assert command(2, *words, *tensor, "--data.batch_size", "4") == [0, 0]
    assert read("run/checkpoints/last.ckpt")["run_state"]["replicas"] == 1


@pytest.mark.slow
def test_a_head_that_is_not_used_holds_nobody_up(folder: Path) -> None:  # noqa: F811
    rows = [json.dumps({"text": "the fox runs" if i % 2 else "the dog jumps", "label": i % 2}) for i in range(40)]
    for name in ("train", "validation"):
        Path(f"{name}.jsonl").write_text("\n".join(rows))
    Path("labels.yaml").write_text(LABELS)
    words = ["fit", "--config", "labels.yaml"]
    assert command(1, *words, "--output", "alone") == [0]
    two = ["--config", "overlays/strategy/ddp", "--data.batches.tokens", "32"]
    assert command(2, *words, *two, "--output", "shared") == [0, 0]
    weights = read("shared/checkpoints/last.ckpt")["state_dict"]
    unused = [name for name in weights if name.startswith("network.head.") and name != "network.head.weight"]  # tied
    assert unused
    start = read("alone/checkpoints/last.ckpt")["state_dict"]
    assert all(torch.equal(weights[name], start[name]) for name in unused)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["fsdp2", "context_parallel", "deepspeed_zero3"])
def test_mixed_precision_gathers_rounded_weights(overlay: str, folder: Path) -> None:  # noqa: F811
    if overlay.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    words = ["fit", *TINY, "--config", "overlays/bf16", "--trainer.max_steps", "6"]
    assert command(1, *words, "--data.batch_size", "4", "--output", "alone") == [0]
    shared = ["--config", f"overlays/strategy/{overlay}", "--data.batch_size", "4" if "context" in overlay else "2"]
    assert command(2, *words, *shared, "--output", "shared") == [0, 0]
    assert losses(folder / "shared") == pytest.approx(losses(folder / "alone"), rel=5e-4)
