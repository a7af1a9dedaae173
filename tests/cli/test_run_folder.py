"""What a run writes of itself into TensorBoard."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from lit_transformer.cli.run_folder import RunFolder, RunRecord
from lit_transformer.errors import Diverged, Preempted


def hyperparameters(folder: Path) -> tuple[dict[str, Any], set[str]]:
    """Hyperparameters and names of metrics, as TensorBoard reads them; empty where there are none."""
    events = EventAccumulator(str(folder)).Reload()
    found: dict[str, Any] = {}
    metrics: set[str] = set()
    for metadata in events.summary_metadata.values():
        data = HParamsPluginData.FromString(metadata.plugin_data.content)
        found |= {name: v.string_value or v.number_value for name, v in data.session_start_info.hparams.items()}
        metrics |= {each.name.tag for each in data.experiment.metric_infos}
    return found, metrics


def trainer(folder: Path, metrics: dict[str, float]) -> Any:
    logger = TensorBoardLogger(str(folder), name="", version="")
    known = {name: torch.tensor(value) for name, value in metrics.items()}
    return SimpleNamespace(is_global_zero=True, sanity_checking=False, loggers=[logger], callback_metrics=known)


@pytest.mark.parametrize(("error", "ended"), [(None, "done"), (Diverged("nan"), "diverged"), (Preempted("stop"), "")])
def test_an_arm_that_dies_is_not_missing_among_the_hyperparameters(
    error: Exception | None, ended: str, tmp_path: Path
) -> None:
    run, module = trainer(tmp_path, {"val/loss": 2.0, "val/worst": float("nan")}), SimpleNamespace()
    record = RunRecord(RunFolder(tmp_path), "", {"model.lr": 0.5})
    record.on_validation_end(run, module)  # type: ignore[arg-type]
    if error is None:
        record.on_train_end(run, module)  # type: ignore[arg-type]
    else:
        record.on_exception(run, module, error)  # type: ignore[arg-type]
    run.loggers[0].finalize("failed")
    found, metrics = hyperparameters(tmp_path)
    assert found == ({"model.lr": 0.5, "ended": ended} if ended else {})
    assert metrics == ({"val/loss"} if ended else set())


def test_one_that_dies_before_any_validation_is_there_too(tmp_path: Path) -> None:
    run = trainer(tmp_path, {})
    RunRecord(RunFolder(tmp_path), "", {"model.lr": 0.5}).on_exception(run, SimpleNamespace(), Diverged("nan"))  # type: ignore[arg-type]
    run.loggers[0].finalize("failed")
    assert hyperparameters(tmp_path) == ({"model.lr": 0.5, "ended": "diverged"}, set())
