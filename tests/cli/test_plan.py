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
    assert "not possible: model.optimizer: Muon needs whole matrices" in said
    assert main(["plan", *recipe, "--devices", "1", "8", "--mfu", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "n_heads: is 4, which 8 tensor-parallel" in said and len(said.splitlines()[-4]) < 200
    assert "time: give --peak_flops" in said
    assert main(["plan", *recipe, "--config", "overlays/strategy/fsdp2_tp"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("Sharded")] == [
        ["Sharded", "4"]
    ]
    pytest.importorskip("deepspeed")
    zero = [plan([*recipe, "--config", f"overlays/strategy/deepspeed_zero{i}"], [4]).rows[0].memory for i in (1, 2, 3)]
    assert zero[0].total > zero[1].total > zero[2].total  # type: ignore[union-attr]


OVERLAY = "overlays/strategy/"
MIXTURE = ["--config", "overlays/feed_forward/mixture"]


def test_devices_that_share_rows_or_experts_are_planned_as_such(recipe: list[str]) -> None:
    alone = plan(recipe, [1]).rows[0]
    shared = plan([*recipe, "--config", f"{OVERLAY}context_parallel"]).rows[0]
    assert (shared.tokens, shared.steps) == (alone.tokens, alone.steps)  # two devices, and the rows of one
    assert shared.memory is not None and alone.memory is not None
    assert shared.memory.weights == alone.memory.weights // 2
    assert alone.memory.activations // 2 < shared.memory.activations < 0.75 * alone.memory.activations
    experts, whole = (
        plan([*recipe, *MIXTURE, "--config", f"{OVERLAY}{name}"]).rows[0].memory
        for name in ("expert_parallel", "fsdp2")
    )
    assert experts is not None and whole is not None
    assert experts.weights == whole.weights and experts.copies < 0.6 * whole.copies  # no expert is gathered


def test_a_batch_of_all_devices_is_one_batch(recipe: list[str]) -> None:
    rows = plan([*recipe, "--data.batch_size", "{class_path: AcrossDevices, rows: 6}"], [1, 2, 4]).rows
    one, two, four = (next(row for row in rows if row.layout.devices == number) for number in (1, 2, 4))
    assert two.layout.name == "ddp" and (two.tokens, two.steps) == (one.tokens, one.steps) and one.tokens == 6 * 64
    assert one.memory is not None and two.memory is not None
    assert two.memory.activations < 0.6 * one.memory.activations
    assert four.memory is None and "6 rows cannot be shared by 4 devices" in four.refusal


@pytest.mark.parametrize(("words", "line"), [
    (["--config", f"{OVERLAY}fsdp2", "--trainer.callbacks+", "LoRA"], "LoRA adds weights"),
    (["--config", f"{OVERLAY}tensor_parallel", "--data.block_size", "15"], "15 tokens cannot be shared by 2"),
    (["--config", f"{OVERLAY}expert_parallel"], "there are none; add --config overlays/feed_forward/mixture"),
    (["--config", f"{OVERLAY}context_parallel", "--config", "overlays/position/alibi"], "no plan for ALiBi"),
])  # fmt: skip
def test_what_fit_refuses_is_not_planned(words: list[str], line: str, recipe: list[str]) -> None:
    row = plan([*recipe, *words]).rows[0]
    assert row.memory is None and line in row.refusal


def test_offloaded_zero(recipe: list[str]) -> None:
    pytest.importorskip("deepspeed")
    names = ("deepspeed_zero3", "deepspeed_zero3_offload")
    here, there = (plan([*recipe, "--config", f"{OVERLAY}{name}"]).rows[0].memory for name in names)
    assert here is not None and there is not None
    assert here.host == 0 and there.host > here.optimizer
    assert there.weights == there.optimizer == there.gradients == 0
    assert there.total + there.host == here.total
    free = "{class_path: torch.optim.Adafactor}"
    assert (
        "Adafactor needs"
        in plan([*recipe, "--config", f"{OVERLAY}{names[0]}", "--model.optimizer", free]).rows[0].refusal
    )


def test_wrong_options(recipe: list[str]) -> None:
    for wrong in (["--devices", "0"], ["--mfu", "2"], ["--peak_flops", "-1"]):
        assert main(["plan", *recipe, *wrong]) == 2
