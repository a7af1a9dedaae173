"""What every run gets without asking: callbacks, loggers, plugins. A recipe's own of a class take their place."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO

from lit_transformer.training.callbacks import GradientNorm, Progress, Ranks, Samples, Throughput
from lit_transformer.training.checkpoint_io import LitCheckpointIO
from lit_transformer.training.checkpointing import Checkpointing
from lit_transformer.training.ema import EMA
from lit_transformer.training.memory_report import MemoryReport
from lit_transformer.training.nonfinite import NonFinite
from lit_transformer.training.run_state import RunState
from lit_transformer.training.signals import Signals

TRAINING_CALLBACKS: tuple[type[Callback], ...] = (
    Ranks,
    Signals,
    RunState,
    NonFinite,
    MemoryReport,
    Throughput,
    GradientNorm,
    Samples,
    Progress,
    Checkpointing,
)
"""In the order in which they are called; Lightning moves those that save to the end."""

EVALUATION_CALLBACKS: tuple[type[Callback], ...] = (EMA, RunState, Progress)
"""Where a checkpoint holds averaged weights, they are what is evaluated, as in training."""


class EventLogger(TensorBoardLogger):
    """TensorBoard events right in the run folder, without a file of hyperparameters: ``recipe.yaml`` says them."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        """The metrics, without the epoch that Lightning adds: runs count steps."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def save(self) -> None:
        """Nothing but the events, which write themselves."""


def with_defaults(given: Any, defaults: Sequence[type[Callback]], trainer: dict[str, Any]) -> list[Callback]:
    """A recipe's callbacks and the default ones that it neither replaces nor switches off."""
    callbacks: list[Callback] = list(given) if isinstance(given, (list, tuple)) else [given] if given else []
    if trainer.get("barebones"):
        return callbacks
    for default in defaults:
        if any(isinstance(callback, default) for callback in callbacks):
            continue
        if issubclass(default, ProgressBar) and (
            trainer.get("enable_progress_bar") is False or any(isinstance(c, ProgressBar) for c in callbacks)
        ):
            continue
        if issubclass(default, Checkpoint) and trainer.get("enable_checkpointing") is False:
            continue
        callbacks.append(default())
    return callbacks


def with_checkpoint_io(given: Any) -> list[Any]:
    """A recipe's plugins and the one that writes and reads checkpoints."""
    plugins = list(given) if isinstance(given, (list, tuple)) else [given] if given else []
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(LitCheckpointIO())
    return plugins


def loggers(given: Any, folder: str) -> Any:
    """The recipe's loggers; the events logger where it says nothing."""
    return EventLogger(folder) if given is None or given is True else given
