"""``lit-transformer plan`` says what a run turns out to need."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_transformer.checkpoints import read
from lit_transformer.cli.main import main
from lit_transformer.cli.plan import plan
from lit_transformer.training.unfilled import Unfilled

RECIPE = """
seed_everything: 1
model:
  class_path: LanguageModeling
  network:
    class_path: DecoderOnly
    dims: {d_model: 64, n_layers: 2, n_heads: 4}
  optimizer: {class_path: AdamW, lr: 1.0e-2}
data:
  class_path: LanguageModelingData
  corpus: {class_path: FilesCorpus, data_files: text.txt}
  tokenizer: Bytes
  block_size: 64
  batch_size: 4
  cache_dir: cache
trainer: {max_steps: 5, accelerator: cpu, limit_val_batches: 0}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return ["--config", "tiny.yaml"]


def test_parameters_checkpoint_and_steps_are_those_of_the_run(recipe: list[str]) -> None:
    found = plan(recipe, devices=[1, 2], mfu=0.5, peak_flops=1e12)
    assert main(["fit", *recipe, "--output", "run"]) == 0
    checkpoint = read("run/checkpoints/last.ckpt")
    state = checkpoint["state_dict"]
    unique = {value.untyped_storage().data_ptr(): value.numel() for value in state.values()}
    assert sum(found.parameters.values()) == sum(unique.values())
    attention = sum(value.numel() for name, value in state.items() if ".attention." in name)
    assert found.parameters["attention"] == attention
    size = Path("run/checkpoints/last.ckpt").stat().st_size
    assert found.checkpoint == pytest.approx(size, rel=0.05)
    alone = found.rows[0]
    assert alone.steps == 8400 * 95 // 100 // 64 // 4 and alone.tokens == 4 * 64
    assert alone.seconds == pytest.approx(5 * 256 * found.flops_per_token / 0.5e12)
    assert {row.layout.name: row.steps for row in found.rows[1:]} == {
        "ddp": alone.steps // 2, "fsdp2": alone.steps // 2, "tensor_parallel": alone.steps,
    }  # fmt: skip


class Live(TorchDispatchMode):
    """The most bytes of tensors alive at once, for real."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = Unfilled()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta:
                self.counter._count(leaf.untyped_storage(), given)
        return result


@pytest.mark.parametrize("extra", [
    [],
    ["--trainer.callbacks+", "Recompute"],
    ["--data.block_size", "512", "--data.batch_size", "2"],  # the blocked kernel
    ["--data.tokenizer", "{class_path: ByteLevelBPE, vocab_size: 300}", "--model.optimizer", "Muon"],
])  # fmt: skip
def test_memory_is_that_of_the_tensors_of_a_real_run(
    recipe: list[str], extra: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = plan([*recipe, *extra], devices=[1]).rows[0].memory
    assert memory is not None
    monkeypatch.setattr("lit_transformer.training.callbacks.gradients.due", lambda trainer: False)
    with Live() as live:
        assert main(["fit", *recipe, *extra, "--output", "run", "--trainer.enable_checkpointing", "false"]) == 0
    assert memory.total == pytest.approx(live.counter.peak, rel=0.1)


def test_what_cannot_be_spread_says_why(recipe: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.jsonl").write_text(json.dumps({"text": "x"}))
    assert main(["plan", *recipe, "--devices", "1", "8", "--model.optimizer", "Muon", "--mfu", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "not possible: Muon needs whole matrices" in said and "n_heads: is 4, which 8 tensor-parallel" in said
    assert "time: give --peak_flops" in said
    assert main(["plan", *recipe, "--config", "overlays/strategy/fsdp2_tp"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("Sharded")] == [
        ["Sharded", "4"]
    ]
    pytest.importorskip("deepspeed")
    zero = [plan([*recipe, "--config", f"overlays/strategy/deepspeed_zero{i}"], [4]).rows[0].memory for i in (1, 2, 3)]
    assert zero[0].total > zero[1].total > zero[2].total  # type: ignore[union-attr]


def test_wrong_options(recipe: list[str]) -> None:
    for wrong in (["--devices", "0"], ["--mfu", "2"], ["--peak_flops", "-1"]):
        assert main(["plan", *recipe, *wrong]) == 2
