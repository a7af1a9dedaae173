"""Opening hostile checkpoints with every verb, and hostile recipes, in processes that count what they do."""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lit_transformer.checkpoints import read
from lit_transformer.cli import verbs
from lit_transformer.cli.main import main
from lit_transformer.recipe.building import NETWORK_ROOMS, TRAINING_ROOMS, import_rooms
from tests.checkpoints.hostile import SENTINEL, fires, hostile, plant
from tests.recipe.hostile import hostile_overlays

RECIPE = """
seed_everything: 1
model:
  class_path: LanguageModeling
  network:
    class_path: DecoderOnly
    dims: {d_model: 16, n_layers: 1, n_heads: 2}
    position: RoPE
  optimizer: {class_path: AdamW, lr: 3.0e-3}
data:
  class_path: LanguageModelingData
  corpus:
    class_path: FilesCorpus
    data_files: {train: TEXT, validation: TEXT, test: TEXT}
    sample_by: split
  tokenizer: {class_path: Character, special_tokens: []}
  block_size: 16
  batch_size: 2
  cache_dir: CACHE
trainer: {max_steps: 4, validate_every: 2, limit_val_batches: 1, logger: false, enable_progress_bar: false}
"""

NAMED = (SENTINEL, "webbrowser", "runpy", "turtle")
EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "webbrowser.open")

NEEDS: dict[str, list[str]] = {
    "generate": ["--prompt", "a", "--max_new_tokens", "2"],
    "translate": ["--text", "a"],
    "classify": ["--text", "a"],
    "score": ["--text", "a checkpoint"],
    "attention": ["--text", "a checkpoint", "--metrics"],
    "checkpoint average": ["GOOD/checkpoints/last.ckpt", "--output", "NEW/average.ckpt"],
    "evaluate": ["--tasks", "none"],
    "export": ["--to", "NEW", "--layout", "native"],
    "serve": ["--port", "0", "--check"],
    "generate draft": ["--checkpoint", "GOOD", "--temperature", "0"],
    "validate": ["--config", "RECIPE"],
    "test": ["--config", "RECIPE"],
    "predict": ["--config", "RECIPE"],
    "fit": ["--config", "RECIPE", "--output", "NEW"],
}
"""What a verb needs beside the checkpoint to do its work."""


def opening_verbs() -> dict[str, list[str]]:
    """Every way to hand a checkpoint file to the program, told by the helps of its verbs, as a command line."""
    found: dict[str, list[str]] = {}
    for verb in verbs.VERBS:
        text = _help(verb)
        actions = re.findall(r"^    ([a-z][\w-]*)  ", text, re.M) if "ACTION" in text else []
        for words in [[verb, action] for action in actions] or [[verb]]:
            for option, said in _options(_help(*words)):
                if re.search(r"checkpoint file|checkpoint, or a run folder", said):
                    given = [f"{option}FILE"] if option.endswith("=") else [option, "FILE"] if option else ["FILE"]
                    name = " ".join([*words, option.strip("-=")]).strip()
                    found[name] = [*words, *given, *NEEDS.get(verb, []), *NEEDS.get(name, [])]
    return found


def _help(*words: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main([*words, "--help"])
    return said.getvalue()


def _options(text: str) -> list[tuple[str, str]]:
    """Options (empty for positional arguments) with what a help says of each."""
    entries = re.findall(r"^  (?! )(\S[^\n]*(?:\n {5,}[^\n]*)*)", text, re.M)
    result = []
    for entry in entries:
        line = " ".join(entry.split())
        option = re.search(r"--[\w-]+=?", line) if line.startswith("-") else None
        result.append((option[0] if option else "", line))
    return result


def prepare(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A recipe in ``folder`` and the content of a checkpoint that it trained."""
    text, recipe = folder / "text.txt", folder / "recipe.yaml"
    text.write_text("a checkpoint is data and not a program\n" * 50, encoding="utf-8")
    recipe.write_text(RECIPE.replace("TEXT", str(text)).replace("CACHE", str(folder / "cache")), encoding="utf-8")
    code, said = call(["fit", "--config", str(recipe), "--output", str(folder / "run")])
    assert code == 0, said
    return recipe, read(folder / "run" / "checkpoints" / "last.ckpt")


def call(argv: Sequence[str]) -> tuple[int, str]:
    """What the program says on standard error, and its exit code."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(list(argv))
    return code, said.getvalue()


def attack(folder: Path, ways: Mapping[str, Sequence[str]], limit: int | None = None) -> Iterator[dict[str, Any]]:
    """One row for each hostile file and verb: exit code, what was said, and the events that must not be."""
    recipe, good = prepare(folder)
    import lit_transformer.cli.training  # noqa: F401  what verbs need is imported before events are counted

    mark = plant(folder)
    import_parts()
    for name, path in list(hostile(folder, good))[:limit]:
        dangerous = in_process(lambda path=path: fires(path, mark))
        mark.unlink(missing_ok=True)
        for verb, words in ways.items():
            argv, new = filled(words, path, recipe, folder)
            code, said, events = in_process(lambda argv=argv: counted(argv))
            yield {
                "file": name, "verb": verb, "code": code, "said": said, "events": events,
                "fired": mark.exists(), "dangerous": dangerous,
            }  # fmt: skip
            mark.unlink(missing_ok=True)
            shutil.rmtree(new, ignore_errors=True)


def attack_by_recipes(folder: Path, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The same for hostile overlays, given to ``fit``."""
    recipe, _ = prepare(folder)
    import lit_transformer.cli.training  # noqa: F401

    mark = plant(folder)
    import_parts(TRAINING_ROOMS)
    os.chdir(folder)  # where 'touch pwned' would leave its mark
    for name, text in list(hostile_overlays(SENTINEL))[:: 1 if limit is None else max(1, 259 // limit)]:
        (folder / "over.yaml").write_text(text, encoding="utf-8")
        argv = ["fit", "--config", str(recipe), "--config", str(folder / "over.yaml"), "--output", str(folder / "new")]
        code, said, events = in_process(lambda argv=argv: counted(argv))
        fired = mark.exists() or (folder / "pwned").exists()
        yield {"file": name, "verb": "fit", "code": code, "said": said, "events": events, "fired": fired}


def filled(words: Sequence[str], path: Path, recipe: Path, folder: Path) -> tuple[list[str], str]:
    """The command line with its places filled in, and the folder that it may write to."""
    new = tempfile.mkdtemp(dir=folder)
    places = {"FILE": str(path), "RECIPE": str(recipe), "NEW": new, "GOOD": str(recipe.parent / "run")}
    return [re.sub(r"\b(FILE|RECIPE|NEW|GOOD)\b", lambda m: places[m[1]], word) for word in words], new


def counted(argv: Sequence[str]) -> tuple[int, str, list[str]]:
    """Runs the program with an audit hook that notes what must not happen."""
    events: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (event == "import" and str(arguments[0]).partition(".")[0] in NAMED) or event in EVENTS:
            events.append(f"{event} {arguments[0]}")
        elif event == "open" and SENTINEL in str(arguments[0]):
            events.append(f"open {arguments[0]}")

    sys.addaudithook(hook)
    return (*call(argv), events)


def import_parts(rooms: Sequence[str] = NETWORK_ROOMS) -> None:
    import_rooms(rooms)


def in_process(work: Any) -> Any:
    """The result of ``work``, done in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.environ["TOKENIZERS_PARALLELISM"] = (
            "false"  # its threads are not in this process, and it would wait for them
        )
        try:
            buffer = io.BytesIO()
            torch.save(work(), buffer)
            with os.fdopen(writing, "wb") as file:
                file.write(buffer.getvalue())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    return torch.load(io.BytesIO(data), weights_only=True) if data else (-9, "the process died", ["died"])
