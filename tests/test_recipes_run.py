"""Every complete recipe that ships is trained, validated and sampled from, shrunk; so is what the README shows."""

import re
from pathlib import Path

import pytest
import yaml

from lit_transformer.cli.main import main
from lit_transformer.recipe import shipped_recipes

ROOT = Path(__file__).parents[1]
COMPLETE = [recipe.name for recipe in shipped_recipes() if not recipe.name.startswith("overlays/")]


def test_there_are_recipes() -> None:
    assert len(COMPLETE) >= 4


@pytest.mark.parametrize("name", COMPLETE)
def test_recipe_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a small text in place of the corpus, which may not be there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    Path("text.txt").write_text("To be, or not to be: that is the question.\n" * 200)
    corpus = ["--data.corpus", "{class_path: FilesCorpus, data_files: text.txt, data_dir: .}"]
    code = main(["fit", "--config", name, "--config", "overlays/tiny", *corpus, "--output", "run"])
    assert code == 0, capsys.readouterr().err
    assert {path.name for path in Path("run").iterdir()} >= {"recipe.yaml", "tokenizer.json", "run.log", "checkpoints"}
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    capsys.readouterr()
    assert main(["validate", "--checkpoint", "run", "--trainer.limit_val_batches", "2"]) == 0
    printed = dict(line.split(" ") for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert set(printed) == {"val/loss", "val/perplexity", "val/bits_per_byte"}
    assert main(["generate", "--checkpoint", "run", "--prompt", "To be", "--max_new_tokens", "8", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("To be")


def test_the_readme_explains_the_quickstart_as_it_is() -> None:
    block = re.search(r"```yaml\n(# A mini-GPT.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    shown = yaml.safe_load(block[1])
    shipped = yaml.safe_load((ROOT / "recipes/quickstart.yaml").read_text())
    shipped["trainer"].pop("callbacks", None)
    assert shown == shipped


def test_the_readme_names_recipes_and_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    names = {recipe.name for recipe in shipped_recipes()}
    assert set(re.findall(r"--config ([\w/]+)", text)) <= names
    for target in re.findall(r"\]\(([\w./]+)\)", text):
        assert (ROOT / target).exists(), target
