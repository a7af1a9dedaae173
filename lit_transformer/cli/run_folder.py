"""The folder of one run: ``runs/<recipe>/<time>/`` with the recipe, the tokenizer, the log, checkpoints and events."""

import html
import logging
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from lit_transformer import __version__
from lit_transformer.errors import Diverged, EnvironmentFault, UserError

ROOT = "runs"
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
_SHARED = "LIT_TRANSFORMER_RUN_FOLDER"


class RunFolder:
    """Where a run writes.

    Only the first process writes; the others are told the path (those that Lightning starts by the environment).

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def for_recipe(cls, name: str, output: str | None = None) -> "RunFolder":
        """A fresh folder for a run of this recipe, or the one that the user names.

        Raises:
            UserError: The folder that the user names holds something already.
        """
        if shared := os.environ.get(_SHARED):
            return cls(Path(shared))
        if output is not None:
            path = Path(output)
            if path.is_dir() and any(path.iterdir()) and is_first_process():
                raise UserError(f"--output {output}: is not empty; name a new folder, or go on with --resume={output}")
            return cls(path)
        base = Path(ROOT) / name / time.strftime("%Y%m%d-%H%M%S")
        path, count = base, 1
        while path.exists() and is_first_process():
            count += 1
            path = base.with_name(f"{base.name}-{count}")
        return cls(path)

    @property
    def log(self) -> Path:
        """The run's log."""
        return self.path / "run.log"

    def _remove(self) -> None:
        for pattern in ("run.log", "events.out.tfevents.*"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)
        with suppress(OSError):
            for folder in (self.path, self.path.parent, self.path.parent.parent):
                folder.rmdir()

    def write_recipe(self, text: str) -> None:
        """Writes ``recipe.yaml``; an older one that says something else is kept beside it."""
        target = self.path / "recipe.yaml"
        with suppress(OSError):
            if target.read_text(encoding="utf-8") == text:
                return
            stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(target.stat().st_mtime))
            target.rename(self.path / f"recipe.{stamp}.yaml")
        self.write("recipe.yaml", text)

    def write(self, name: str, text: str) -> None:
        """Writes a small file, whole or not at all."""
        target = self.path / name
        temporary = target.with_name(f".{name}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, target)
        except OSError as error:
            raise EnvironmentFault(f"{target}: cannot be written: {error.strerror or error}") from error

    @contextmanager
    def opened(self, argv: list[str], allow: list[str]) -> Iterator[None]:
        """Makes the folder and writes the log while the run lasts."""
        if not is_first_process():
            yield
            return
        fresh = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(self.log, encoding="utf-8")
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: cannot be written: {error.strerror or error}") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lit_transformer", "py.warnings")]
        own = logging.getLogger("lit_transformer.run")
        before = own.level, own.propagate
        own.setLevel(logging.INFO)
        for logger in loggers:
            logger.addHandler(handler)
        logging.captureWarnings(True)
        os.environ[_SHARED] = str(self.path.absolute())
        try:
            for line in opening_lines(argv, allow):
                own.info(line)
            yield
            own.info("done")
        except BaseException as error:
            own.info("ended: %s: %s", type(error).__name__, " ".join(str(error).split())[:2000])
            raise
        finally:
            os.environ.pop(_SHARED, None)
            logging.captureWarnings(False)
            for logger in loggers:
                logger.removeHandler(handler)
            own.setLevel(before[0])
            handler.close()
            if fresh and not (self.path / "recipe.yaml").exists():
                self._remove()  # nothing was trained: what is left would only look like a run


def opening_lines(argv: list[str], allow: list[str]) -> list[str]:
    """What the log of a run begins with: versions, command line, allowed packages."""
    import lightning
    import torch

    return [
        f"lit-transformer {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"lightning {lightning.__version__}, {platform.platform()}",
        f"command: lit-transformer {shlex.join(argv)}",
        f"folder: {os.getcwd()}",
        f"packages allowed beside the closed list: {', '.join(allow) if allow else 'none'}",
    ]


def is_first_process() -> bool:
    """Whether this is the first of all processes, as far as the launcher says."""
    return all(os.environ.get(name, "0") in ("0", "") for name in _RANKS)


def run_folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint file lies in, by its ``recipe.yaml``."""
    for folder in (checkpoint, *list(checkpoint.absolute().parents)[:2]):
        if (folder / "recipe.yaml").is_file():
            return folder
    return None


class RunRecord(Callback):
    """Writes into the run folder and into TensorBoard what a run is: its recipe, its tokenizer, its results.

    Args:
        folder: The run folder.
        recipe: The resolved recipe, as text.
        hyperparameters: The same as flat keys and values.
    """

    def __init__(self, folder: RunFolder, recipe: str, hyperparameters: dict[str, Any]) -> None:
        self.folder = folder
        self.recipe = recipe
        self.hyperparameters = hyperparameters
        self.metrics: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the recipe and the tokenizer."""
        if not trainer.is_global_zero:
            return
        self.folder.write_recipe(self.recipe)
        tokenizer = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if tokenizer is not None and hasattr(tokenizer, "to_json"):
            self.folder.write("tokenizer.json", tokenizer.to_json())
        # A code block with markup escaped: TensorBoard renders Markdown and would fetch an image that a text names.
        text = "\n".join("    " + html.escape(line) for line in self.recipe.split("\n"))
        for events in event_writers(trainer):
            events.add_text("recipe", text, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps what is known, for a run that diverges: ranks exchange nothing more then."""
        if not trainer.sanity_checking:
            self.metrics = dict(trainer.callback_metrics)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the hyperparameters; their metrics are the last values of the curves, under the curves' own names."""
        if trainer.callback_metrics:
            self._write_hyperparameters(trainer, trainer.callback_metrics, "done")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the hyperparameters of a run that diverged, with the metrics until then that are finite."""
        if isinstance(exception, Diverged):
            self._write_hyperparameters(trainer, self.metrics, "diverged")

    def _write_hyperparameters(self, trainer: Trainer, metrics: Mapping[str, Any], ended: str) -> None:
        if not trainer.is_global_zero:
            return
        known = {name: number for name, value in metrics.items() if math.isfinite(number := float(value))}
        for events in event_writers(trainer):
            for event in hparams({**self.hyperparameters, "ended": ended}, known):
                events.file_writer.add_summary(event)


def event_writers(trainer: Trainer) -> list[Any]:
    """The writers of TensorBoard events among the trainer's loggers."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def announce(message: str) -> None:
    """Tells the user, and the log of the run."""
    if is_first_process():
        print(message, file=sys.stderr)
        logging.getLogger("lit_transformer.run").info(message)
