"""A run small enough to do a hundred times: a network with dropout on a loader that keeps its place."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lit_transformer.training.checkpoint_io import LitCheckpointIO
from lit_transformer.training.checkpointing import Checkpointing
from lit_transformer.training.nonfinite import NonFinite
from lit_transformer.training.run_state import RunState
from lit_transformer.training.signals import Signals


@dataclass
class Batch:
    """What the callbacks read of a batch."""

    x: Tensor
    ids: Tensor
    window_tokens: Tensor

    def to(self, device: Any, **_: Any) -> "Batch":
        return replace(self, x=self.x.to(device))

    def __len__(self) -> int:
        return len(self.ids)


class Loader:
    """Rows in an order that is a function of (seed, epoch); goes on from any place."""

    def __init__(
        self, rows: int = 64, batch: int = 4, seed: int = 0, poison: tuple[int, ...] = (), shuffle: bool = True
    ) -> None:
        self.data = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
        self.batch, self.seed, self.poison = batch, seed, poison
        self.shuffle = shuffle
        self.epoch = self.done = 0
        self._resume = False

    def __len__(self) -> int:
        return len(self.data) // self.batch

    def __iter__(self) -> Iterator[Batch]:
        if self._resume:
            self._resume = False
        elif self.done:
            self.epoch, self.done = self.epoch + 1, 0
        if self.done >= len(self):
            self.epoch, self.done = self.epoch + 1, 0
        order = np.arange(len(self.data))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.data))
        while self.done < len(self):
            rows = torch.from_numpy(order[self.done * self.batch : (self.done + 1) * self.batch])
            x = self.data[rows]
            index = self.epoch * len(self) + self.done
            if index in self.poison:  # the loss is NaN, or infinite
                x = x * (float("nan") if index % 2 else 1e30)
            self.done += 1
            yield Batch(x, rows + self.epoch * len(self.data), torch.tensor(self.batch))

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.done = state["epoch"], state["done"]
        self._resume = True


class Task(LightningModule):
    """Learns to copy its input through a layer with dropout."""

    def __init__(self, steps: int = 40, width: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.network = nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.Dropout(0.2), nn.Linear(width, 8))
        with torch.no_grad():
            for p in self.network.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
        self.steps = steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss: Tensor = (self.network(batch.x) - batch.x).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log(
            "val/loss", (self.network(batch.x) - batch.x).square().mean() + torch.rand(()) * 0, batch_size=len(batch)
        )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (2 * self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Trace(Callback):
    """What a run did: loss, sample ids and learning rate of every batch, and the steps that were validated."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float, tuple[int, ...], float]] = []
        self.validated: list[tuple[int, float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.index = trainer.fit_loop.epoch_loop.total_batch_idx

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.batches.append((self.index, float(outputs["loss"]), tuple(batch.ids.tolist()), self.rate))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated.append((trainer.global_step, float(trainer.callback_metrics["val/loss"])))


def train(
    folder: Path,
    max_steps: int = 40,
    *,
    resume: Path | None = None,
    callbacks: tuple[Callback, ...] = (),
    loader: Any = None,
    every_n_steps: int = 10,
    seed: int = 0,
    max_skipped: int = 0,
    run_state: RunState | None = None,
    guard: NonFinite | None = None,
    **trainer: Any,
) -> tuple[Task, Trace, Trainer]:
    """One run of the task; 16 batches an epoch unless a loader is given."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    task, trace = Task(), Trace()
    options: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "max_epochs": -1, "val_check_interval": 6, "check_val_every_n_epoch": None,
    }  # fmt: skip
    run = Trainer(
        default_root_dir=folder,
        max_steps=max_steps,
        plugins=[LitCheckpointIO()],
        callbacks=[
            run_state or RunState(), guard or NonFinite(max_skipped), Signals(), trace, *callbacks,
            Checkpointing(folder / "checkpoints", every_n_steps=every_n_steps),
        ],
        **options | trainer,
    )  # fmt: skip
    run.fit(task, loader or Loader(), Loader(8, 2, seed=3, shuffle=False), ckpt_path=resume, weights_only=True)
    return task, trace, run
