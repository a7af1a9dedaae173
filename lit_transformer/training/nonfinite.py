"""A loss or gradient that is not finite must not reach the weights."""

import logging
import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_transformer.errors import Diverged, UserError
from lit_transformer.networks.parts import local
from lit_transformer.training.run_state import RunState, find_callback

log = logging.getLogger(__name__)


@dataclass
class _Window:
    """What is known of an accumulation window: loss and norm of its gradient, on the host or on their way there."""

    step: int
    rates: list[float]
    ids: list[Tensor]
    evidence: Tensor
    arrived: torch.cuda.Event | None = None


class NonFinite(Callback):
    """Skips accumulation windows whose loss or gradient is not finite, on all ranks, and stops a run that has too many.

    A skipped window leaves the weights, the optimizer and the generators as if it had not been there. The clock and the
    learning rate go on, because they count windows; ``clock.applied`` counts the updates. Every skip is logged with
    its step, the samples of the window and the learning rate. A gradient is checked as well, since one backward pass
    can turn a finite loss into NaN.

    A window can only be skipped once the host knows of it, so with ``max_skipped`` or ``spike_sigma`` an accelerator is
    waited for in every step. Where nothing may be skipped, its numbers are read one step late, when they have long
    arrived, and before anything is saved or validated: the run ends the same, and no step waits.

    Args:
        max_skipped: Windows that may be skipped in a run; one more ends it with exit code 4.
        spike_sigma: Also skip a window whose loss lies this many standard deviations above the mean of the last
            ``window`` ones (OLMo's rule takes 6); left out: no such check. Skipped windows do not enter the mean.
        window: Losses that the mean is taken of; the check starts once half of them are there.
    """

    def __init__(self, max_skipped: int = 0, spike_sigma: float | None = None, window: int = 128) -> None:
        if max_skipped < 0 or window < 2 or (spike_sigma is not None and not spike_sigma > 0):
            raise UserError("NonFinite: max_skipped must be at least 0, window at least 2 and spike_sigma above 0")
        self.max_skipped = max_skipped
        self.spike_sigma = spike_sigma
        self.window = window
        self.skipped = 0
        self._losses: deque[float] = deque(maxlen=window)
        self._loss: Tensor | None = None
        self._pending: _Window | None = None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Adds the micro-batch's loss to the window's: a sum is not finite once one part is not."""
        detached = loss.detach().float()
        self._loss = detached if self._loss is None else self._loss + detached

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Looks at the window; where it is bad, takes its gradients away: the optimizer's step then does nothing."""
        loss, self._loss = self._loss, None
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if loss is None:
            return
        if scaler is not None:
            # float16: infinite gradients are how the scaler finds its scale, and it skips those steps itself
            evidence = torch.stack([loss / scaler.get_scale(), torch.zeros_like(loss)])
        else:
            evidence = torch.stack([loss, _norm(_gradients(trainer, optimizer), loss)])
        if trainer.world_size > 1:
            torch.distributed.all_reduce(evidence)
            evidence[0] /= trainer.world_size
        self.settle(trainer)
        state = find_callback(trainer, RunState)
        rates = list(dict.fromkeys(float(group["lr"]) for group in optimizer.param_groups))
        window = _Window(trainer.global_step + 1, rates, [] if state is None else state.window_ids, evidence)
        if self._may_be_late(evidence):
            self._pending = _sent(window)
        elif (reason := self._reason_of(window)) is not None:
            self._skip(trainer, window, reason)
            optimizer.zero_grad(set_to_none=True)
            if state is not None:
                state.skip_window()

    def settle(self, trainer: Trainer) -> None:
        """Ends the run if the last window, whose numbers were not waited for, was bad.

        Raises:
            Diverged: It was.
        """
        window, self._pending = self._pending, None
        if window is not None and (reason := self._reason_of(window)) is not None:
            self._skip(trainer, window, reason)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Knows of every window before its weights are judged."""
        self.settle(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Knows of every window before its weights are saved."""
        self.settle(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Knows of every window before the run has ended well."""
        self.settle(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The number of skips, and the losses that spikes are measured against."""
        return {"skipped": self.skipped, "losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes both over."""
        self.skipped = state_dict["skipped"]
        self._losses = deque(state_dict["losses"], maxlen=self.window)

    def _may_be_late(self, evidence: Tensor) -> bool:
        return evidence.is_cuda and self.max_skipped == 0 and self.spike_sigma is None

    def _reason_of(self, window: _Window) -> str | None:
        if window.arrived is not None:
            window.arrived.synchronize()
        loss, norm = window.evidence.tolist()
        reason = self._reason(loss, norm)
        if reason is None:
            self._losses.append(loss)
        return reason

    def _reason(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient is not finite (loss {loss:.4g})"
        if self.spike_sigma is not None and len(self._losses) >= self.window // 2:
            mean = sum(self._losses) / len(self._losses)
            deviation = math.sqrt(sum((each - mean) ** 2 for each in self._losses) / len(self._losses))
            if loss > mean + self.spike_sigma * deviation:
                return f"the loss {loss:.4g} lies {(loss - mean) / max(deviation, 1e-12):.1f} sigma above {mean:.4g}"
        return None

    def _skip(self, trainer: Trainer, window: _Window, reason: str) -> None:
        self.skipped += 1
        rates = ", ".join(f"{rate:.4g}" for rate in window.rates)
        ids = torch.cat(window.ids).tolist() if window.ids else []
        said = f"step {window.step}: {reason}; learning rate {rates}; samples of rank {trainer.global_rank}: {ids}"
        if self.skipped > self.max_skipped:
            raise Diverged(
                f"{said}; the last checkpoint is as it was. Lower the learning rate, warm up longer or clip the "
                f"gradient (trainer.gradient_clip_val), or allow skips (NonFinite.max_skipped, now {self.max_skipped})"
            )
        log.warning("%s; window skipped (%d of at most %d)", said, self.skipped, self.max_skipped)
        trainer.lightning_module.log("train/skipped_windows", float(self.skipped), rank_zero_only=False)


def _sent(window: _Window) -> _Window:
    """Starts the way of a window's numbers to the host without waiting for them."""
    window.evidence = window.evidence.to("cpu", non_blocking=True)  # into pinned memory
    window.arrived = torch.cuda.Event()
    window.arrived.record()
    return window


def _gradients(trainer: Trainer, optimizer: Optimizer) -> list[Tensor]:
    """This rank's gradients."""
    partitions = getattr(trainer.strategy, "partitions", None)
    if partitions is not None:  # DeepSpeed's ZeRO
        return partitions.gradients()  # type: ignore[no-any-return]
    return [local(p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _norm(gradients: list[Tensor], like: Tensor) -> Tensor:
    """Sum of the gradients' norms: finite exactly when every gradient's norm is."""
    if not gradients:
        return torch.zeros_like(like)
    norms = torch._foreach_norm(gradients)
    return torch.stack([norm.float().to(like.device) for norm in norms]).sum()
