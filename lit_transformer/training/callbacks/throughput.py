"""Tokens per second and, where the device's peak is known, model FLOPs utilisation."""

import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_transformer.training.callbacks.gradients import due


class Throughput(Callback):
    """Logs ``train/tokens_per_second`` (all ranks) and ``train/mfu``: the FLOPs that the model needs, as a share of
    the dense peak of the device in this precision (Chowdhery et al., 2022, arXiv:2204.02311, appendix B).

    The clock stands still during validation, generation and saving.
    """

    def __init__(self) -> None:
        self._tokens = 0
        self._since = 0.0
        self._pause = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._tokens, self._since = 0, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._pause = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts it again."""
        self._since += time.perf_counter() - self._pause

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts; logs at the logged steps."""
        self._tokens += batch.tokens.numel() * trainer.world_size
        step = trainer.global_step
        every = max(1, int(getattr(trainer, "log_every_n_steps", 50)))
        if step == 0 or step % every or trainer.fit_loop._should_accumulate():
            return
        seconds = time.perf_counter() - self._since
        rate = self._tokens / seconds if seconds > 0 else 0.0
        values = {"train/tokens_per_second": rate}
        flops = getattr(getattr(pl_module, "network", None), "flops_per_token", None)
        peak = peak_flops(pl_module.device, str(trainer.precision))
        if flops is not None and peak:
            values["train/mfu"] = rate * flops(batch.tokens.shape[-1]) / (peak * trainer.world_size)
        pl_module.log_dict(values)
        self._tokens, self._since = 0, time.perf_counter()


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Dense peak in FLOP/s of a known device, None for the others (a CPU among them)."""
    if device.type == "cpu":
        return None
    dtype = torch.bfloat16 if "bf16" in precision else torch.float16 if precision.startswith("16") else torch.float32
    try:
        return get_available_flops(device, dtype)
    except (RuntimeError, ValueError):
        return None


__all__ = ["Throughput", "due", "peak_flops"]
