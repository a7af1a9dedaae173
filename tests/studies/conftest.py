"""A study of tiny runs whose answer is known: two arms are the same, one learns nothing."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

STUDY = """\
# Three arms: two alike, one that is kept from learning.
study:
  question: Which rate learns?
  recipe: base.yaml
  baseline: one
  seeds: [1, 2, 3]
  arms:
    one: {model.optimizer.lr: 1.0e-2}
    same: {model.optimizer.lr: 0.01}
    still: {model.optimizer.lr: 1.0e-9}
  steps:
    - {name: longer, times: {data.block_size: 2, data.batch_size: 0.5}}
    - {name: beyond, arms: [one], times: {data.block_size: 4}, model.network.position: Learned}
  measures: {loss: fit val/loss, ratio: longer val/perplexity / fit val/perplexity}
  claims:
    - {class_path: Below, text: a rate learns, arm: one, than: [still], measure: loss, source: every textbook}
    - {class_path: Below, text: two equal arms differ, arm: one, than: [same], measure: loss}
    - {class_path: Refused, text: weights of another network are refused, arm: one, step: beyond}
  figures:
    - {class_path: Intervals, measure: loss}
    - {class_path: Steps, steps: [fit, longer], x: [1, 2]}
    - Curves
    - {class_path: Heat, measure: loss}
    - {class_path: Against, fact: parameters}
"""

BASE = """\
# A tiny run.
model:
  class_path: LanguageModeling
  network: {class_path: DecoderOnly, dims: {d_model: 16, n_layers: 1, n_heads: 2, max_len: 16}}
  optimizer: {class_path: AdamW, lr: 1.0e-2}
data:
  class_path: LanguageModelingData
  corpus: {class_path: FilesCorpus, data_files: text.txt}
  tokenizer: Character
  block_size: 16
  batch_size: 8
  cache_dir: cache
trainer:
  max_steps: 12
  validate_every: 6
  accelerator: cpu
  num_sanity_val_steps: 0
  callbacks: [{class_path: Samples, prompts: []}]
"""


def write_study(folder: Path) -> None:
    draw = random.Random(0)
    words = "the quick brown fox jumps over lazy dog and runs home to sleep".split()
    (folder / "text.txt").write_text("\n".join(" ".join(draw.choice(words) for _ in range(12)) for _ in range(60)))
    (folder / "study.yaml").write_text(STUDY)
    (folder / "base.yaml").write_text(BASE)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study, run to its end once for all tests; they must not write into it."""
    from lit_transformer.cli.main import main

    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert main(["study", "--config", "study.yaml", "--output", "out", "--processes", "2"]) == 0
    finally:
        os.chdir(before)
    return folder / "out"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Any:
    from lit_transformer.cli.main import main

    def run(*argv: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return run
