"""Opening hostile checkpoints with every verb, in processes that count what they do."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lit_transformer.checkpoints import read
from lit_transformer.cli.main import main
from tests.checkpoints.hostile import SENTINEL, fires, hostile, plant

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

NAMED = (SENTINEL, "webbrowser", "runpy")
EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "webbrowser.open")

VERBS: dict[str, list[str]] = {
    "inspect": ["checkpoint", "inspect", "FILE"],
    "verify": ["checkpoint", "verify", "FILE"],
    "generate": ["generate", "--checkpoint", "FILE", "--prompt", "a", "--max_new_tokens", "2"],
    "validate": ["validate", "--config", "RECIPE", "--checkpoint", "FILE"],
    "test": ["test", "--config", "RECIPE", "--checkpoint", "FILE"],
    "predict": ["predict", "--config", "RECIPE", "--checkpoint", "FILE"],
    "resume": ["fit", "--config", "RECIPE", "--resume=FILE", "--output", "NEW"],
    "init_from": ["fit", "--config", "RECIPE", "--init_from", "FILE", "--output", "NEW"],
}


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


def attack(folder: Path, verbs: Sequence[str], limit: int | None = None) -> Iterator[dict[str, Any]]:
    """One row for each hostile file and verb: exit code, what was said, and the events that must not be."""
    recipe, good = prepare(folder)
    import lit_transformer.cli.training  # noqa: F401  what verbs need is imported before events are counted

    mark = plant(folder)
    import_parts()
    for name, path in list(hostile(folder, good))[:limit]:
        dangerous = in_process(lambda path=path: fires(path, mark))
        mark.unlink(missing_ok=True)
        for verb in verbs:
            words = {"FILE": str(path), "RECIPE": str(recipe), "NEW": tempfile.mkdtemp(dir=folder)}
            argv = [words.get(word, word) for word in VERBS[verb]]
            argv = [f"--resume={path}" if word == "--resume=FILE" else word for word in argv]
            code, said, events = in_process(lambda argv=argv: counted(argv))
            yield {
                "file": name, "verb": verb, "code": code, "said": said, "events": events,
                "fired": mark.exists(), "dangerous": dangerous,
            }  # fmt: skip
            mark.unlink(missing_ok=True)
            shutil.rmtree(words["NEW"], ignore_errors=True)


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


def import_parts() -> None:
    from lit_transformer.recipe.building import import_rooms

    import_rooms()


def in_process(work: Any) -> Any:
    """The result of ``work``, done in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
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
