"""A tiny recipe in a folder of its own; commands run in this process, as starting torch takes seconds."""

import random
from pathlib import Path

import pytest

from lit_transformer.cli.main import main

RECIPE = """\
# A tiny run for tests.
seed_everything: 1
model:
  class_path: LanguageModeling
  network:
    class_path: DecoderOnly
    dims: {d_model: 16, n_layers: 1, n_heads: 2}
    position: RoPE
  optimizer: {class_path: torch.optim.AdamW, lr: 3e-3}
  schedule: Cosine
data:
  class_path: LanguageModelingData
  corpus:
    class_path: FilesCorpus
    data_files: {train: train.txt, validation: validation.txt, test: test.txt}
  tokenizer: Character
  block_size: 16
  batch_size: 8
  cache_dir: cache
trainer:
  max_steps: 4
  validate_every: 2
  accelerator: cpu
  num_sanity_val_steps: 0
"""


@pytest.fixture(scope="session")
def text_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(0)
    words = "the quick brown fox jumps over lazy dog and runs home to sleep".split()
    for name, lines in (("train", 60), ("validation", 8), ("test", 8)):
        text = "\n".join(" ".join(draw.choice(words) for _ in range(12)) for _ in range(lines))
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, text_files):
    """The working directory of a test: the tiny recipe and its texts."""
    for file in text_files.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys):
    """Runs a command; gives its exit code, standard output and standard error."""

    def run(*argv):
        capsys.readouterr()
        code = main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("runs/*/*/run.log"))
