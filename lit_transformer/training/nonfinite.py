"""A loss or gradient that is not finite must not reach the weights."""

import logging
import math
from collections import deque
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_transformer.errors import Diverged, UserError
from lit_transformer.training.run_state import RunState, find_callback, local

log = logging.getLogger(__name__)


class NonFinite(Callback):
    """Skips accumulation windows whose loss or gradient is not finite, on all ranks, and stops a run that has too many.

    A skipped window leaves the weights, the optimizer and the generators as if it had not been there. The clock and the
    learning rate go on, because they count windows; ``clock.applied`` counts the updates. Every skip is logged with
    its step, the samples of the window and the learning rate. A gradient is checked as well, since one backward pass
    can turn a finite loss into NaN.

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
            evidence = torch.stack([loss, _norm(optimizer, loss)])
        if trainer.world_size > 1:
            torch.distributed.all_reduce(evidence)
            evidence[0] /= trainer.world_size
        value, norm = evidence.tolist()
        reason = self._reason(value, norm)
        if reason is None:
            self._losses.append(value)
        else:
            self._skip(trainer, optimizer, reason)

    def state_dict(self) -> dict[str, Any]:
        """The number of skips, and the losses that spikes are measured against."""
        return {"skipped": self.skipped, "losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes both over."""
        self.skipped = state_dict["skipped"]
        self._losses = deque(state_dict["losses"], maxlen=self.window)

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

    def _skip(self, trainer: Trainer, optimizer: Optimizer, reason: str) -> None:
        self.skipped += 1
        step = trainer.global_step + 1
        rates = ", ".join(f"{rate:.4g}" for rate in dict.fromkeys(group["lr"] for group in optimizer.param_groups))
        state = find_callback(trainer, RunState)
        ids = [] if state is None else torch.cat(state.window_ids).tolist() if state.window_ids else []
        said = f"step {step}: {reason}; learning rate {rates}; samples of rank {trainer.global_rank}: {ids}"
        if self.skipped > self.max_skipped:
            raise Diverged(
                f"{said}; the last checkpoint is as it was. Lower the learning rate, warm up longer or clip the "
                f"gradient (trainer.gradient_clip_val), or allow skips (NonFinite.max_skipped, now {self.max_skipped})"
            )
        log.warning("%s; window skipped (%d of at most %d)", said, self.skipped, self.max_skipped)
        optimizer.zero_grad(set_to_none=True)
        if state is not None:
            state.skip_window()
        trainer.lightning_module.log("train/skipped_windows", float(self.skipped), rank_zero_only=False)


def _norm(optimizer: Optimizer, like: Tensor) -> Tensor:
    """Sum of the gradients' norms: finite exactly when every gradient's norm is."""
    gradients = [local(p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return torch.zeros_like(like)
    norms = torch._foreach_norm(gradients)
    return torch.stack([norm.float().to(like.device) for norm in norms]).sum()
