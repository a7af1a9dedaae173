"""Tokens per second, step times over ranks and, where the device's peak is known, model FLOPs utilisation."""

import statistics
import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_transformer.training.callbacks.gradients import due
from lit_transformer.training.callbacks.stragglers import OwnTime, hosts_of_ranks, over_ranks, straggler
from lit_transformer.training.memory_report import peak_memory
from lit_transformer.training.run_state import say


class Throughput(Callback):
    """Logs ``train/tokens_per_second`` (all ranks) and ``train/mfu``: the FLOPs that the model needs, as a share of
    the dense peak of the device in this precision (Chowdhery et al., 2022, arXiv:2204.02311, appendix B).

    Beside it, under ``throughput/``: ``step_seconds`` and ``memory_peak_mb`` (the most of all ranks), and on several
    ranks ``tokens_per_second_per_device``, and ``step_seconds`` and ``own_seconds`` (without waiting for the others) as
    ``_min``, ``_median`` and ``_max``. A rank whose own time is far above the others' is named, with its host.

    The clock stands still during validation, generation and saving.
    """

    def __init__(self) -> None:
        self._tokens = 0
        self._since = 0.0
        self._pause = 0.0
        self._steps = 0
        self._waited = 0.0
        self._own: OwnTime | None = None
        self._hosts: list[str] = []
        self._named: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._hosts = hosts_of_ranks(trainer)
        if trainer.world_size > 1:
            self._own = OwnTime()
            self._own.start(trainer, pl_module)
        self._restart()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._pause = time.perf_counter()
        self._waited = 0.0 if self._own is None else self._own.waited

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts it again."""
        self._since += time.perf_counter() - self._pause
        if self._own is not None:
            self._own.waited = self._waited

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Under DDP, what is behind the last gradient was waiting."""
        if self._own is not None:
            self._own.backward_done()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts; logs at the logged steps."""
        self._tokens += batch.tokens.numel()
        if trainer.fit_loop._should_accumulate():
            return
        self._steps += 1
        step = trainer.global_step
        every = max(1, int(getattr(trainer, "log_every_n_steps", 50)))
        if step == 0 or step % every:
            return
        seconds = time.perf_counter() - self._since
        own = seconds - (0.0 if self._own is None else self._own.waited)
        mine = (seconds / self._steps, own / self._steps, self._tokens, peak_memory(pl_module.device) / 1e6)
        values = self._values(trainer, over_ranks(mine, trainer), seconds)
        flops = getattr(getattr(pl_module, "network", None), "flops_per_token", None)
        peak = peak_flops(pl_module.device, str(trainer.precision))
        if flops is not None and peak:
            rate = values["train/tokens_per_second"]
            values["train/mfu"] = rate * flops(batch.tokens.shape[-1]) / (peak * trainer.world_size)
        pl_module.log_dict(values)
        self._restart()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves collective operations as they were."""
        if self._own is not None:
            self._own.stop()
            self._own = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """See ``on_train_end``."""
        self.on_train_end(trainer, pl_module)

    def _restart(self) -> None:
        self._tokens, self._steps, self._since = 0, 0, time.perf_counter()
        if self._own is not None:
            self._own.waited = 0.0

    def _values(self, trainer: Trainer, ranks: list[list[float]], seconds: float) -> dict[str, float]:
        steps, own, tokens, memory = zip(*ranks, strict=True)
        share: dict[str, int] = trainer.distributed_sampler_kwargs or {}  # ranks that share a row count it once
        alike = trainer.world_size // share.get("num_replicas", 1) if trainer.world_size > 1 else 1
        rate = sum(tokens) / alike / seconds if seconds > 0 else 0.0
        values = {"train/tokens_per_second": rate, "throughput/memory_peak_mb": max(memory)}
        if trainer.world_size == 1:
            return {**values, "throughput/step_seconds": steps[0]}
        values["throughput/tokens_per_second_per_device"] = rate / trainer.world_size
        for name, times in (("step_seconds", steps), ("own_seconds", own)):
            values[f"throughput/{name}_min"] = min(times)
            values[f"throughput/{name}_median"] = statistics.median(times)
            values[f"throughput/{name}_max"] = max(times)
        self._name(trainer, own)
        return values

    def _name(self, trainer: Trainer, own: tuple[float, ...]) -> None:
        """Says which rank holds the others up, once until it is another one."""
        slow = straggler(own)
        if slow is not None and slow != self._named and trainer.is_global_zero:
            median = statistics.median(time for rank, time in enumerate(own) if rank != slow)
            text = (
                f"step {trainer.global_step}: rank {slow} on {self._hosts[slow]} is busy {own[slow]:.3g} s a step, the "
                f"median of the others is {median:.3g} s: they wait for it"
            )
            say(text)
            for logger in trainer.loggers:
                add = getattr(getattr(logger, "experiment", None), "add_text", None)
                if add is not None:
                    add("throughput/straggler", text, trainer.global_step)
        self._named = slow


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
