"""Training with the layers' products in float8, where the hardware has it."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lit_transformer.blocks import Stack
from lit_transformer.blocks.float8 import to_float8
from lit_transformer.errors import UserError

CAPABILITY = (8, 9)


class Float8(Callback):
    """Experimental: products of the layers in float8 (Micikevicius et al., 2022, arXiv:2209.05433).

    The embedding, the head, norms and attention's scores stay in the run's precision, which bf16-mixed is made for, and
    so do products whose sizes are no multiples of 16. Weights, and so checkpoints, are as without it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Changes the network as soon as it is built."""
        if stage != "fit":
            return
        if hasattr(pl_module, "network"):
            self.convert(pl_module.network)  # type: ignore[arg-type]
        else:
            pl_module.on_built.append(self.convert)  # type: ignore[operator, union-attr]

    def convert(self, network: nn.Module) -> None:
        """All layers.

        Raises:
            UserError: No product has sizes that float8 takes.
        """
        stacks = [module for module in network.modules() if isinstance(module, Stack)]
        if not sum(to_float8(layer) for stack in stacks for layer in stack.layers):
            raise UserError("trainer.callbacks: Float8 finds no product whose sizes are multiples of 16; change dims, "
                            "or take it out")  # fmt: skip


def check_hardware() -> None:
    """Refuses devices without products in float8.

    Raises:
        UserError: Naming what there is.
    """
    here = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if here is None or here < CAPABILITY:
        has = "no GPU is here" if here is None else f"this GPU has {here[0]}.{here[1]}"
        raise UserError(f"trainer.callbacks: Float8 needs a GPU of compute capability 8.9 or more (L40, H100), "
                        f"and {has}; use --config overlays/bf16")  # fmt: skip
