"""How much of a step is spent on exchanging tensors between ranks."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

from lit_transformer.errors import UserError
from lit_transformer.training.run_state import at_step_boundary

PREFIXES = ("nccl", "gloo:")
"""How the profiler names what NCCL's kernels and gloo's threads did."""


class CommunicationShare(Callback):
    """Logs ``throughput/communication_share``: the share of a step's seconds in which ranks exchanged tensors.

    One optimizer step of each ``every_n_steps`` runs under PyTorch's profiler, which makes that step slower. Exchange
    that overlaps with arithmetic counts in full, so the number is how much there is, not how much is waited for.

    Args:
        every_n_steps: Optimizer steps between two.
    """

    def __init__(self, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise UserError(f"CommunicationShare.every_n_steps: is {every_n_steps}, must be at least 1")
        self.every_n_steps = every_n_steps
        self._profile: Any = None
        self._begun = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts with the first batch of a step that is due; the first step of all is none like the others."""
        step = trainer.global_step
        due = step > 0 and (step - 1) % self.every_n_steps == 0
        if due and self._profile is None and trainer.world_size > 1:
            activities = [ProfilerActivity.CPU]
            if pl_module.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._begun = time.perf_counter()
            self._profile.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends with the step, and logs the mean over ranks."""
        if self._profile is None or not at_step_boundary(trainer):
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._begun
        ended, self._profile = self._profile, None
        ended.__exit__(None, None, None)
        spans = [
            (event.time_range.start, event.time_range.end)
            for event in ended.events()
            if str(event.name).startswith(PREFIXES)
        ]
        share = torch.tensor(covered(spans) / 1e6 / seconds, device=trainer.strategy.root_device)
        mean = float(trainer.strategy.reduce(share, reduce_op="mean"))
        for logger in trainer.loggers:
            logger.log_metrics({"throughput/communication_share": mean}, step=trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lets the profiler go."""
        ended, self._profile = self._profile, None
        if ended is not None:
            ended.__exit__(None, None, None)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
