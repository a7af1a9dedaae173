"""validate, test and predict: a checkpoint's metrics on the terminal, its predictions as JSON lines."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer as LightningTrainer

from lit_transformer.checkpoints.finding import resolve
from lit_transformer.cli.arguments import Arguments
from lit_transformer.cli.run_folder import run_folder_of
from lit_transformer.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    from lit_transformer.cli.training import TrainingCLI


def checkpoint_to_evaluate(arguments: Arguments) -> Path:
    """The checkpoint to evaluate; its run's recipe is used where none is named."""
    if not arguments.checkpoint:
        raise UserError(f"{arguments.verb}: --checkpoint is missing; it takes a checkpoint file or a run folder")
    if "://" in arguments.checkpoint:
        raise UserError(f"{arguments.checkpoint}: checkpoints are read from files only; download it first")
    checkpoint = resolve(arguments.checkpoint)
    if not arguments.configs:
        folder = run_folder_of(Path(arguments.checkpoint)) or run_folder_of(checkpoint)
        if folder is None:
            raise UserError(f"{arguments.verb}: no recipe.yaml beside {checkpoint}; name the recipe with --config")
        arguments.configs.append(str(folder / "recipe.yaml"))
    return checkpoint


def evaluate(arguments: Arguments, cli: "TrainingCLI", checkpoint: Path) -> None:
    """Runs the CLI's verb on a checkpoint and shows what was found; a rank other than the first is silent."""
    path = str(checkpoint)
    if arguments.verb == "predict":
        batches = cli.trainer.predict(cli.model, datamodule=cli.datamodule, ckpt_path=path) or []
        rows = _of_all_ranks([row for batch in batches for row in _rows(batch)], cli.trainer)
        if cli.trainer.is_global_zero:
            _write_lines(arguments.output, rows)
        return
    found = evaluated(cli, path)
    if cli.trainer.is_global_zero:
        for name, value in found.items():
            print(f"{name} {value:.6g}")


def evaluated(cli: "TrainingCLI", checkpoint: str) -> dict[str, float]:
    """The metrics of a checkpoint on the split of the CLI's verb."""
    evaluate = cli.trainer.validate if cli.verb == "validate" else cli.trainer.test
    found = evaluate(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, verbose=False)
    return {name: float(value) for metrics in found for name, value in metrics.items()}


def _rows(batch: Any) -> Iterator[Any]:
    yield from batch if isinstance(batch, list) else [batch]


def _of_all_ranks(rows: list[Any], trainer: LightningTrainer) -> list[Any]:
    """The rows of all ranks by their number, each once: shards of one model have the same ones."""
    if trainer.world_size == 1:
        return rows
    found: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, rows)
    by_number = {row["id"]: row for part in found for row in part}
    return [by_number[number] for number in sorted(by_number)]


def _write_lines(output: str | None, rows: Iterable[Any]) -> None:
    """Predictions as JSON lines."""
    try:
        with open(output, "w", encoding="utf-8") if output else _standard_output() as file:
            for row in rows:
                print(json.dumps(row, ensure_ascii=False), file=file)
    except OSError as error:
        name = output or "standard output"
        raise EnvironmentFault(f"{name}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _standard_output() -> Iterator[Any]:
    yield sys.stdout
