"""Averages of checkpoints: the mean, to the bit; one line where there is none."""

import re
from pathlib import Path

import pytest
import torch

from lit_transformer.checkpoints.averaging import average_checkpoints
from lit_transformer.checkpoints.loading import load_network
from lit_transformer.checkpoints.reading import read, verify
from lit_transformer.cli.main import main
from lit_transformer.errors import UserError

RECIPE = """
seed_everything: 1
model:
  class_path: LanguageModeling
  network: {class_path: DecoderOnly, dims: {d_model: 16, n_layers: 1, n_heads: 2}}
  optimizer: {class_path: AdamW, lr: 1.0e-2}
data:
  class_path: LanguageModelingData
  corpus: {class_path: FilesCorpus, data_files: text.txt, data_dir: .}
  tokenizer: Bytes
  block_size: 16
  batch_size: 4
trainer:
  max_steps: 10
  validate_every: 2
  enable_progress_bar: false
  callbacks: [{class_path: KeptCheckpoints, last: 2, best: 2}, {class_path: EMA, decay: 0.5}]
"""


def test_from_a_run_to_an_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    Path("text.txt").write_text("To be, or not to be: that is the question.\n" * 40)
    Path("tiny.yaml").write_text(RECIPE)
    assert main(["fit", "--config", "tiny.yaml", "--output", "run", "--trainer.max_steps", "6"]) == 0
    assert main(["fit", "--config", "tiny.yaml", "--resume=run"]) == 0
    kept = sorted(path.name for path in Path("run/checkpoints").glob("step-*"))
    state = next(s for s in read("run/checkpoints/last.ckpt")["callbacks"].values() if "scores" in s)
    assert list(state["scores"]) == [2, 4, 6, 8, 10]
    best = sorted(state["scores"], key=state["scores"].__getitem__)[:2]
    assert kept == sorted({f"step-{step:08d}.ckpt" for step in {8, 10, *best}})
    assert all(verify(f"run/checkpoints/{name}").step == int(name[5:13]) for name in kept)

    capsys.readouterr()
    assert main(["checkpoint", "average", "run", "--last", "2", "--output", "mean.ckpt"]) == 0
    assert "mean of 2 checkpoints" in capsys.readouterr().out
    parts = [read(f"run/checkpoints/step-{step:08d}.ckpt")["state_dict"] for step in (8, 10)]
    mean = read("mean.ckpt")
    for name, value in mean["state_dict"].items():
        wanted = ((parts[0][name].double() + parts[1][name].double()) / 2).to(value.dtype)
        assert torch.equal(value, wanted), name
    assert mean["averaged"] == {"steps": [8, 10], "weights": "raw"} and "optimizer_states" not in mean
    loaded = load_network("mean.ckpt")
    assert loaded.network.head.weight.data_ptr() == loaded.network.embedding.weight.data_ptr()
    assert main(["validate", "--checkpoint", "mean.ckpt", "--config", "run/recipe.yaml"]) == 0
    assert main(["checkpoint", "average", "run", "--best", "2", "--weights", "ema", "--output", "best.ckpt"]) == 0
    assert read("best.ckpt")["averaged"]["steps"] == sorted(best)
    assert main(["checkpoint", "inspect", "best.ckpt"]) == 0
    assert "mean of steps" in capsys.readouterr().out

    for arguments, said in (
        (["run", "--last", "9"], r"keeps \d checkpoints to average"),
        (["run"], "say how many with --last or --best"),
        (["mean.ckpt", "--last", "2"], "of one run folder"),
        (["mean.ckpt"], "needs at least two checkpoints, got 1"),
        (["mean.ckpt", "mean.ckpt", "--weights", "ema"], "holds no averaged weights"),
    ):
        assert main(["checkpoint", "average", *arguments, "--output", "no.ckpt"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(said, error), error
    assert not Path("no.ckpt").exists()
    assert main(["fit", "--config", "tiny.yaml", "--output", "other", "--model.network.dims.d_model", "32"]) == 0
    with pytest.raises(UserError, match="has another shape than in"):
        average_checkpoints(["mean.ckpt", "other/checkpoints/last.ckpt"], "no.ckpt")
