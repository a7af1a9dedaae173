"""Optimizers that need no schedule because they average the weights themselves."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_transformer.checkpoints.parts import EMA as KEY
from lit_transformer.errors import UserError
from lit_transformer.networks.parts import assembled
from lit_transformer.training.ema import EMA, _aliases, _trained
from lit_transformer.training.run_state import find_callback


class ScheduleFree(Callback):
    """Lets the optimizers of ``schedulefree`` (Defazio et al., 2024, arXiv:2405.15682) train, validate, save and
    resume; every task brings it along, and it does nothing for others.

    Such an optimizer trains at one point (y) and evaluates at an average (x) that follows from its state (z). A
    validation puts x in place and y back, bit for bit; the package's own ``eval()`` and ``train()`` round on the way.
    A checkpoint holds y where weights always are, so that a resumed run goes on exactly, and x where an average of the
    weights is kept, which is what is used later.
    """

    def __init__(self) -> None:
        self._raw: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a second average."""
        if _optimizer(trainer) is not None and find_callback(trainer, EMA) is not None:
            raise UserError("trainer.callbacks: EMA: a schedule-free optimizer averages the weights itself; remove EMA")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the optimizer that it is at y."""
        optimizer = _optimizer(trainer)
        if optimizer is not None:
            optimizer.train()  # type: ignore[attr-defined]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the average in the weights' place."""
        if self._raw:
            return
        averages = _averages(trainer, pl_module)
        with torch.no_grad():
            for name, parameter in _trained(pl_module).items():
                if name in averages:
                    self._raw[name] = parameter.detach().clone()
                    parameter.copy_(averages[name])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the weights back, bit for bit."""
        with torch.no_grad():
            for name, parameter in _trained(pl_module).items():
                if name in self._raw:
                    parameter.copy_(self._raw[name])
        self._raw = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the weights back when a validation is left in the middle."""
        self.on_validation_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the average; the weights stay those of training, also in the middle of a validation."""
        averages = _averages(trainer, pl_module, self._raw)
        if not averages:
            return
        aliases, parameters = _aliases(pl_module), _trained(pl_module)
        for name, raw in self._raw.items():
            for alias in aliases[name]:
                checkpoint["state_dict"][alias] = assembled(parameters[name], raw)
        checkpoint[KEY] = {
            "step": trainer.global_step,
            "updates": trainer.global_step,
            "decay": "schedule-free",
            "weights": {name: assembled(parameters[name], average) for name, average in averages.items()},
            "aliases": {name: same for name, same in aliases.items() if len(same) > 1},
        }


def _optimizer(trainer: Trainer) -> Optimizer | None:
    """The schedule-free optimizer of a run, if it has one."""
    return next((each for each in trainer.optimizers if "train_mode" in each.param_groups[0]), None)


@torch.no_grad()
def _averages(trainer: Trainer, module: LightningModule, raw: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """x by parameter name; nothing for other optimizers, and before the first step."""
    optimizer = _optimizer(trainer)
    if optimizer is None:
        return {}
    names = {id(parameter): name for name, parameter in _trained(module).items()}
    averages: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        beta = group["betas"][0] if "betas" in group else group["momentum"]
        for parameter in group["params"]:
            z = optimizer.state[parameter].get("z") if parameter in optimizer.state else None
            if z is not None:
                name = names[id(parameter)]
                y = (raw or {}).get(name, parameter.detach())
                averages[name] = y.lerp(z.to(y.device), 1 - 1 / beta)
    return averages
