"""What a mixture of experts needs from the training loop."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_transformer.blocks.routing import update_balance


class ExpertBalance(Callback):
    """Moves the biases of ``BiasBalancing`` once an optimizer step; every task brings it along.

    All micro-batches of the step are counted by then, and no pass of theirs is still to be repeated.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """The window's last backward pass is done."""
        update_balance(pl_module)
