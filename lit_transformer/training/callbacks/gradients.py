"""Gradient norm at every logged step; by layer, and histograms, on demand."""

import math

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from lit_transformer.analysis.probing import names_by_layer, parameters_by_layer
from lit_transformer.training.gathering import whole_gradient, whole_weight
from lit_transformer.training.strategy import gradient_norm


def due(trainer: Trainer) -> bool:
    """Whether the optimizer step under way is one that is logged."""
    every = max(1, int(getattr(trainer, "log_every_n_steps", 50)))
    return (trainer.global_step + 1) % every == 0 or trainer.global_step == 0


class GradientNorm(Callback):
    """Logs ``train/gradient_norm``: the length of the whole gradient before any clipping."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measures where the step is logged, and only there."""
        if not due(trainer):
            return
        partitions = getattr(trainer.strategy, "partitions", None)
        if any(isinstance(p, DTensor) for p in pl_module.parameters()):  # on several meshes, or on none
            norm = gradient_norm(pl_module.parameters())
        elif partitions is None:
            norm = get_total_norm([p.grad for p in pl_module.parameters() if p.grad is not None])
        else:  # DeepSpeed's ZeRO: every rank has a part
            norm = trainer.strategy.reduce(get_total_norm(partitions.gradients()) ** 2, reduce_op="sum").sqrt()
        pl_module.log("train/gradient_norm", norm)


class LayerGradientNorms(Callback):
    """Logs ``train/gradient_norm_by_layer/N``, the length of each layer's gradient, and ``train/gradient_spread``.

    The spread is the largest over the smallest: where it is far from 1, some layers learn much faster than others.
    An encoder-decoder's stacks are told apart: ``train/gradient_norm_by_layer_encoder/N``.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measures where the step is logged, and only there; all ranks take part."""
        if not due(trainer):
            return
        norms: dict[str, dict[int, float]] = {}
        for (stack, number), parameters in parameters_by_layer(pl_module.network):  # type: ignore[arg-type]
            gradients = [g for p in parameters if (g := whole_gradient(p, trainer)) is not None]
            norms.setdefault(stack, {})[number] = float(get_total_norm(gradients))
        found = names_by_layer(norms, "train/gradient_norm_by_layer")
        smallest = min(found.values(), default=0.0)
        pl_module.log_dict({**found, "train/gradient_spread": max(found.values()) / smallest if smallest else math.inf})


class Histograms(Callback):
    """Histograms of every weight and gradient, per layer, in TensorBoard.

    Args:
        every_n_steps: Optimizer steps between two.
    """

    def __init__(self, every_n_steps: int = 500) -> None:
        self.every_n_steps = every_n_steps

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Writes where the step is due; all ranks take part, the first one writes."""
        step = trainer.global_step
        if step % self.every_n_steps:
            return
        found = [getattr(getattr(logger, "experiment", None), "add_histogram", None) for logger in trainer.loggers]
        writers = [each for each in found if each is not None and trainer.is_global_zero]
        for name, parameter in pl_module.named_parameters():
            values = {"weights": whole_weight(parameter, trainer), "gradients": whole_gradient(parameter, trainer)}
            for kind, value in values.items():
                if value is not None:
                    for add in writers:
                        add(f"{kind}/{name}", _plain(value), step)


def _plain(tensor: Tensor) -> Tensor:
    """TensorBoard takes finite float32 on the CPU."""
    return torch.nan_to_num(tensor.detach().float().cpu())
