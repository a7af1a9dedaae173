"""What fine-tuning needs: frozen parts, rates by layer, and optimizers that average by themselves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import AdamW

from lit_transformer.checkpoints.loading import network_weights
from lit_transformer.checkpoints.reading import read
from lit_transformer.cli.main import main
from lit_transformer.cli.verify_resume import verify_resume
from lit_transformer.dims import Dims, SizeError
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly, EncoderDecoder
from lit_transformer.training.callbacks import Freeze
from lit_transformer.training.muon import Muon
from lit_transformer.training.optimizers import LayerwiseDecay, parameter_groups
from lit_transformer.vocabulary import Vocabulary

RECIPE = """
seed_everything: 1
model:
  class_path: LanguageModeling
  network: {class_path: DecoderOnly, dims: {d_model: 16, n_layers: 2, n_heads: 2}}
  optimizer: {class_path: AdamW, lr: 1.0e-2}
  schedule: {class_path: Constant, warmup: 2}
data:
  class_path: LanguageModelingData
  corpus: {class_path: FilesCorpus, data_files: text.txt, data_dir: .}
  tokenizer: Bytes
  block_size: 16
  batch_size: 4
trainer: {max_steps: 6, validate_every: 3, enable_progress_bar: false, log_every_n_steps: 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("To be, or not to be: that is the question.\n" * 40)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


def fit(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["fit", "--config", "tiny.yaml", *arguments])
    return code, capsys.readouterr().err


def network(kind: Any = DecoderOnly) -> Any:
    return kind(Vocabulary(20, bos_id=0), Dims(d_model=16, n_layers=3, n_heads=2, max_len=8))


def test_rates_fall_from_the_top_down() -> None:
    net = network()
    optimizer = LayerwiseDecay(parameter_groups(net), lambda groups: AdamW(groups, lr=1.0, weight_decay=0.1), 0.5)
    assert type(optimizer) is AdamW
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        depth = int(name.split(".")[2]) + 1 if ".layers." in name else 0 if name.startswith("embedding") else 4
        assert rates[id(parameter)] == 0.5 ** (4 - depth), name
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert all(decays[id(p)] == (0.1 if p.ndim > 1 else 0.0) for p in net.parameters())
    assert optimizer.param_groups[0]["lr"] == 1.0
    both = LayerwiseDecay(parameter_groups(network(EncoderDecoder)), lambda groups: Muon(groups, lr=1.0), 0.9)
    assert {group["name"] for group in both.param_groups} == {"matrices", "embeddings", "vectors"}
    with pytest.raises(SizeError, match="optimizer.decay: is 0"):
        LayerwiseDecay(parameter_groups(net), AdamW, 0)


def test_frozen_parts_have_no_gradient_and_no_group() -> None:
    net = network()
    Freeze(["embedding", "stack.layers.0-1"]).freeze(net)
    free = {name for name, p in net.named_parameters() if p.requires_grad}
    assert free and all(name.startswith(("stack.layers.2", "stack.norm")) for name in free)
    assert sum(len(group["params"]) for group in parameter_groups(net)) == len(free)
    with pytest.raises(UserError, match=r"no part 'stack.layers.3'; there are: .*stack \(stack.layers.0-2\)"):
        Freeze("stack.layers.2-3").freeze(network())
    with pytest.raises(SizeError, match="freezes every parameter"):
        frozen = network()
        Freeze(["embedding", "stack"]).freeze(frozen)
        parameter_groups(frozen)
    with pytest.raises(UserError, match="names no part"):
        Freeze([])


def test_a_run_from_another_with_frozen_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(capsys, "--output", "first")[0] == 0
    code, said = fit(
        capsys, "--init_from", "first", "--output", "second", "--model.network.dims.n_layers", "3",
        "--trainer.callbacks", "[{class_path: Freeze, parts: [embedding, stack.layers.0]}, {class_path: EMA, decay: 0.5}]",
        "--model.optimizer", "{class_path: LayerwiseDecay, decay: 0.5, optimizer: {class_path: AdamW, lr: 0.01}}",
    )  # fmt: skip
    assert code == 0, said
    assert "weights loaded" in said and "new, drawn from the seed (9): stack.layers.2\n" in said
    # the best weights of the first run
    before = network_weights("", read("first/checkpoints/best.ckpt"), "raw")
    after = network_weights("", read("second/checkpoints/last.ckpt"), "raw")
    for name, value in before.items():
        frozen = name.startswith(("embedding", "head", "stack.layers.0"))
        assert torch.equal(value, after[name]) == frozen, name
    assert main(["validate", "--checkpoint", "second"]) == 0
    code, said = fit(capsys, "--trainer.callbacks", "[{class_path: Freeze, parts: [encoder]}]")
    assert code == 2 and "the network has no part 'encoder'" in said.splitlines()[-1]


def test_schedule_free(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resumes exactly; what is validated and used later is the average, which the package's own eval() gives."""
    pytest.importorskip("schedulefree")
    optimizer = ["--model.optimizer", "{class_path: schedulefree.AdamWScheduleFree, lr: 0.02}"]
    report = verify_resume(["--config", "tiny.yaml", *optimizer], steps=9, at=4, lost=2)
    assert report.same, str(report)
    assert fit(capsys, *optimizer, "--output", "run")[0] == 0
    content = read("run/checkpoints/last.ckpt")
    raw, average = network_weights("", content, "raw"), network_weights("", content, "ema")
    assert not torch.equal(raw["embedding.weight"], average["embedding.weight"])
    groups, states = (content["optimizer_states"][0][key] for key in ("param_groups", "state"))
    assert all(group["train_mode"] and group["k"] == 6 for group in groups)
    net = DecoderOnly(Vocabulary(**content["vocabulary"]), Dims(d_model=16, n_layers=2, n_heads=2))
    net.load_state_dict(raw)
    for group, state in zip(parameter_groups(net), groups, strict=True):
        for parameter, number in zip(group["params"], state["params"], strict=True):
            name = next(name for name, p in net.named_parameters() if p is parameter)
            wanted = parameter.detach().lerp(states[number]["z"], 1 - 1 / state["betas"][0])
            torch.testing.assert_close(average[name], wanted, rtol=0, atol=0)
    capsys.readouterr()
    assert main(["validate", "--checkpoint", "run"]) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    best = read("run/checkpoints/best.ckpt")["callbacks"]
    score = next(state["best_score"] for state in best.values() if "best_score" in state)
    assert float(shown["val/loss"]) == pytest.approx(score, rel=1e-5)
    code, said = fit(capsys, *optimizer, "--trainer.callbacks", "[EMA]")
    assert code == 2 and "averages the weights itself; remove EMA" in said
