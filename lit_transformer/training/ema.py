"""Exponential moving average of the weights (Polyak & Juditsky, 1992)."""

import itertools
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from lit_transformer.checkpoints.parts import EMA as KEY
from lit_transformer.errors import UserError
from lit_transformer.networks.parts import assembled, cut, fill, held, hold, local
from lit_transformer.training.run_state import RunState, at_step_boundary, find_callback
from lit_transformer.training.signals import Signals


class EMA(Callback):
    """Averages the weights after every applied update; validation, test and prediction run on the average.

    While training, each validation also takes the loss of the raw weights, logged as ``val/raw_loss``, so that the two
    can be compared; what is best is decided by the average. A checkpoint holds both: the raw weights where they always
    are, the average under ``ema``. A resumed run goes on with both, and whoever loads the file later chooses.

    Args:
        decay: Weight of the past. Early on it is less, ``(1 + n) / (10 + n)`` after ``n`` updates, or the average would
            be the initial weights for long.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise UserError(f"EMA.decay: is {decay}, must lie between 0 and 1")
        self.decay = decay
        self.updates = 0
        self._step = 0
        self.average: dict[str, Tensor] = {}
        """The averaged weights by parameter name, while training."""
        self._loaded: dict[str, Tensor] | None = None
        self._raw: dict[str, Tensor] = {}
        self._raw_loss: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average at the weights, or where the checkpoint left it."""
        parameters = _trained(pl_module)
        self.average = {name: held(p).clone(memory_format=torch.preserve_format) for name, p in parameters.items()}
        if self._loaded is not None:
            self._fill(self._loaded, parameters)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was loaded is in use."""
        self._loaded = None

    def _fill(self, loaded: dict[str, Tensor], parameters: dict[str, Tensor]) -> None:
        missing = self.average.keys() ^ loaded.keys()
        if missing:
            raise UserError(f"the checkpoint's average of the weights does not fit this network: {sorted(missing)[0]}")
        with torch.no_grad():
            for name, average in self.average.items():
                local(average).copy_(cut(parameters[name], loaded[name]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes in the new weights."""
        if not at_step_boundary(trainer):
            return
        self._step = trainer.global_step
        state = find_callback(trainer, RunState)
        if state is not None and state.window_skipped:
            return
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = _trained(pl_module)
        with torch.no_grad():
            torch._foreach_lerp_(
                [local(average) for average in self.average.values()],
                [local(held(parameters[name])) for name in self.average],
                weight,
            )
        self.updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the raw weights, then puts the average in their place."""
        if not self.average or self._raw:
            return
        self._raw_loss = None if trainer.sanity_checking else _validation_loss(trainer, pl_module)
        with torch.no_grad():
            for name, parameter in _trained(pl_module).items():
                self._raw[name] = held(parameter).clone()
                hold(parameter, self.average[name])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the loss of the raw weights, beside what the task logs of the average."""
        if self._raw_loss is not None:
            pl_module.log("val/raw_loss", self._raw_loss, rank_zero_only=False, sync_dist=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back, bit for bit."""
        with torch.no_grad():
            for name, parameter in _trained(pl_module).items():
                if name in self._raw:
                    hold(parameter, self._raw[name])
        self._raw = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the weights back when a validation is left in the middle."""
        self.on_validation_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the average; the weights stay the raw ones, also in the middle of a validation."""
        if not self.average:
            return
        aliases, parameters = _aliases(pl_module), _trained(pl_module)
        for name, raw in self._raw.items():
            for alias in aliases[name]:
                checkpoint["state_dict"][alias] = assembled(parameters[name], raw)
        checkpoint[KEY] = {
            "step": self._step,
            "updates": self.updates,
            "decay": self.decay,
            "weights": {name: assembled(parameters[name], average) for name, average in self.average.items()},
            "aliases": {name: same for name, same in aliases.items() if len(same) > 1},
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes over the average; outside of training it becomes the weights."""
        state = checkpoint.get(KEY)
        if state is None:
            return
        if trainer.state.fn == "fit":
            self.updates, self._step, self._loaded = state["updates"], state["step"], state["weights"]
            if self.average:  # a strategy that spreads the network reads checkpoints when the run has begun
                self._fill(state["weights"], _trained(pl_module))
        else:
            with torch.no_grad():
                for name, parameter in _trained(pl_module).items():
                    if name in state["weights"]:  # what was frozen in training has no average
                        fill(parameter, state["weights"][name])


def _validation_loss(trainer: Trainer, module: LightningModule) -> float | None:
    """Loss over the validation split with the weights as they are; none where the task has no such sums."""
    loss_sums = getattr(module, "loss_sums", None)
    if not callable(loss_sums) or isinstance(trainer.val_dataloaders, list):
        return None
    sums = torch.zeros(2, dtype=torch.float64)
    signals = find_callback(trainer, Signals)
    most = trainer.num_val_batches[0]
    for batch in itertools.islice(trainer.val_dataloaders or (), None if math.isinf(most) else int(most)):
        if trainer.world_size == 1 and signals is not None and signals.received:
            return None
        with trainer.precision_plugin.val_step_context():
            total, count = loss_sums(trainer.strategy.batch_to_device(batch))
        sums += torch.stack([total.double(), count.double()]).cpu()
    if trainer.world_size > 1:
        sums = trainer.strategy.reduce(sums.to(trainer.strategy.root_device), reduce_op="sum").cpu()
    return float(sums[0] / sums[1]) if sums[1] else None


def _trained(module: LightningModule) -> dict[str, Tensor]:
    """The parameters by name; of what FSDP2 left gathered after a pass without gradients, this rank's parts."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _aliases(module: LightningModule) -> dict[str, list[str]]:
    """All names of each parameter: a tied one has several, and each is a key of the state dict."""
    first = {id(p): name for name, p in module.named_parameters()}
    names: dict[str, list[str]] = {name: [] for name in first.values()}
    for name, p in module.named_parameters(remove_duplicate=False):
        names[first[id(p)]].append(name)
    return names
