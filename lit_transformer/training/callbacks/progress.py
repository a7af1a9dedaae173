"""One line that moves on a terminal, plain lines in a log."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress(ProgressBar):
    """Optimizer steps done, the loss, tokens per second and the time left; validation results as lines of their own.

    Args:
        every_n_seconds: Least time between two updates: drawing must not cost steps.
    """

    def __init__(self, every_n_seconds: float = 0.5) -> None:
        super().__init__()
        self.every_n_seconds = every_n_seconds
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._drawn = 0.0
        self._enabled = True
        self._console = Console(stderr=False, highlight=False)
        self._started = (0.0, 0)

    def disable(self) -> None:
        """Silence (Lightning calls it on all ranks but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Speak."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """A line above the bar."""
        if self._enabled:
            (self._bar.console if self._bar else self._console).print(*args, markup=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the bar."""
        self._started = (time.perf_counter(), trainer.global_step)
        if not self._enabled:
            return
        network = getattr(pl_module, "network", None)
        if network is not None:
            parameters = sum(getattr(p, "ds_numel", p.numel()) for p in network.parameters())  # whole ones under ZeRO-3
            self.print(f"{type(network).__name__}: {parameters:,} parameters, steps "
                       f"{trainer.global_step:,} to {trainer.max_steps:,}, {trainer.precision} on "
                       f"{trainer.world_size} x {pl_module.device.type}")  # fmt: skip
        if sys.stdout.isatty():
            self._bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                refresh_per_second=4,
                expand=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "training", total=trainer.max_steps, completed=trainer.global_step, numbers=""
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates, at most every so often."""
        if not self._enabled:
            return
        now = time.perf_counter()
        step = trainer.global_step
        if self._bar is not None:
            if now - self._drawn >= self.every_n_seconds or step == trainer.max_steps:
                self._drawn = now
                self._bar.update(self._task, completed=step, numbers=self._numbers(trainer))
        elif now - self._drawn >= max(10.0, self.every_n_seconds) or step == trainer.max_steps:
            self._drawn = now
            begun, first = self._started
            done = max(1, step - first)
            left = (trainer.max_steps - step) * (now - begun) / done
            self.print(f"step {step:,}/{trainer.max_steps:,}  {self._numbers(trainer)}  {_clock(left)} left")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One line of results."""
        if not self._enabled or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        metrics = trainer.callback_metrics
        values = "  ".join(
            f"{name} {float(value):.4f}" for name, value in sorted(metrics.items()) if name.startswith("val/")
        )
        self.print(f"step {trainer.global_step:,}  {values}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the bar as it stands."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the terminal in order."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the terminal in order."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _numbers(self, trainer: Trainer) -> str:
        metrics = trainer.callback_metrics
        parts = []
        if "train/loss" in metrics:
            parts.append(f"loss {float(metrics['train/loss']):.4f}")
        if "train/tokens_per_second" in metrics:
            parts.append(f"{float(metrics['train/tokens_per_second']):,.0f} tokens/s")
        return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
