"""Every complete recipe that ships is trained, validated and sampled from, shrunk; so is what the README shows."""

import json
import re
from pathlib import Path

import pytest
import yaml

from lit_transformer.cli.main import main
from lit_transformer.data.corpora import StdlibCorpus
from lit_transformer.recipe import shipped_recipes

ROOT = Path(__file__).parents[1]
COMPLETE = [recipe.name for recipe in shipped_recipes() if not recipe.name.startswith("overlays/")]
CLASSIFICATION = [name for name in COMPLETE if name.startswith("classification/")]
CLASSIFICATION_OVERLAYS = [r.name for r in shipped_recipes() if r.name.startswith("overlays/classification/")]
CLASSIFICATION_BASE = "classification/ag_news_10k"
TRANSLATION = [name for name in COMPLETE if name.startswith("translation/")]
ARCHITECTURES = [r.name for r in shipped_recipes() if r.name.startswith("overlays/architecture/")]
ARCHITECTURES_BASE = "translation/tatoeba_en_de"
OBJECTIVES = [
    n for n in COMPLETE if n.split("/")[0] in ("masked_language_modeling", "denoising", "supervised_fine_tuning")
]
FIELDS = ("text", "sentence1", "sentence2")


@pytest.fixture
def _part_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third file of the standard library: what is tried here is that recipes run."""
    whole = StdlibCorpus.__dict__["files"].func
    monkeypatch.setattr(StdlibCorpus, "files", property(lambda self: whole(self)[::3]))


def test_there_are_recipes() -> None:
    assert len(COMPLETE) >= 4


@pytest.mark.parametrize("name", [name for name in COMPLETE if name not in CLASSIFICATION + TRANSLATION + OBJECTIVES])
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
    assert set(printed) >= {"val/loss", "val/perplexity", "val/bits_per_byte"}
    assert main(["generate", "--checkpoint", "run", "--prompt", "To be", "--max_new_tokens", "8", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("To be")


@pytest.mark.parametrize("name", CLASSIFICATION + CLASSIFICATION_OVERLAYS)
def test_classification_recipe_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a few rows in place of the corpus, which may not be there; the one that needs no corpus on its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    rows = [{field: f"film {i % 7} is {'good' if i % 2 else 'bad'}" for field in FIELDS} for i in range(40)]
    lines = "".join(json.dumps({**row, "label": str(i % 2)}) + "\n" for i, row in enumerate(rows))
    for split in ("train", "validation", "test"):
        Path(f"{split}.jsonl").write_text(lines)
    corpus = ["--data.corpus", "{class_path: FileRows, data_dir: .}", "--data.tokenizer.vocab_size", "100"]
    if name == "classification/stdlib_packages":
        corpus = ["--data.corpus.lines", "20", "--data.corpus.most_snippets", "20", "--data.batches.tokens", "1024"]
    recipe = ["--config", name] if name in CLASSIFICATION else ["--config", CLASSIFICATION_BASE, "--config", name]
    code = main(["fit", *recipe, "--config", "overlays/tiny_rows", *corpus, "--output", "run"])
    assert code == 0, capsys.readouterr().err
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    capsys.readouterr()
    assert main(["validate", "--checkpoint", "run", "--trainer.limit_val_batches", "2"]) == 0
    printed = dict(line.split(" ") for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert set(printed) >= {"val/loss", "val/accuracy", "val/macro_f1", "val/matthews"}
    assert main(["predict", "--checkpoint", "run", "--trainer.limit_predict_batches", "1"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert sum(first["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("name", TRANSLATION + ARCHITECTURES)
def test_translation_recipe_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a few pairs in place of the corpus, which may not be there; numerals on its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    pairs = [{"en": f"{i} small dogs run, said Tom", "de": f"{i} kleine Hunde laufen, sagte Tom"} for i in range(40)]
    for split in ("train", "validation", "test"):
        Path(f"{split}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    corpus = ["--data.corpus", "{class_path: FileRows, data_dir: .}", "--data.tokenizer.vocab_size", "100"]
    if name == "translation/numerals":
        corpus = ["--data.corpus.rows", "60", "--data.tokenizer.vocab_size", "100"]
    recipe = ["--config", name] if name in TRANSLATION else ["--config", ARCHITECTURES_BASE, "--config", name]
    code = main(["fit", *recipe, "--config", "overlays/tiny_rows", *corpus, "--output", "run"])
    assert code == 0, capsys.readouterr().err
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    capsys.readouterr()
    assert main(["test", "--checkpoint", "run", "--trainer.limit_test_batches", "2"]) == 0
    printed = dict(line.split(" ") for line in capsys.readouterr().out.splitlines() if line.startswith("test/"))
    assert set(printed) >= {"test/loss", "test/perplexity", "test/chrf"}
    Path("source.txt").write_text("one\ntwo\n")
    assert main(["translate", "--checkpoint", "run", "--input", "source.txt", "--max_new_tokens", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.usefixtures("_part_of_the_library")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_recipe_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a small text in place of the corpus; prompts and responses out of the standard library itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    Path("text.txt").write_text("To be, or not to be: that is the question.\n" * 200)
    rows = name.startswith("supervised_fine_tuning/") or name == "denoising/stdlib"
    given = ["--config", "overlays/tiny_rows" if rows else "overlays/tiny", "--data.tokenizer.vocab_size", "400"]
    if not name.startswith("supervised_fine_tuning/"):
        given += ["--data.corpus", "{class_path: FilesCorpus, data_files: text.txt, data_dir: .}"]
    code = main(["fit", "--config", name, *given, "--output", "run"])
    assert code == 0, capsys.readouterr().err
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    capsys.readouterr()
    assert main(["validate", "--checkpoint", "run", "--trainer.limit_val_batches", "2"]) == 0
    printed = dict(line.split(" ") for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert set(printed) >= {"val/loss", "val/perplexity"}
    assert ("val/accuracy" in printed) == name.startswith("masked_language_modeling/")
    assert main(["predict", "--checkpoint", "run", "--trainer.limit_predict_batches", "1"]) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[0])) == {"id", "tokens", "log_likelihood"}


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
    names |= {
        str(file.relative_to(ROOT / "recipes" / "studies"))[:-5] for file in ROOT.glob("recipes/studies/**/*.yaml")
    }
    named = {name for name in re.findall(r"--config ([\w/]+)", text) if not name.startswith("runs/") and name != "R"}
    assert named <= names
    for target in re.findall(r"\]\(([\w./]+)\)", text):
        assert (ROOT / target).exists(), target
