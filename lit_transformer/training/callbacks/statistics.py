"""Statistics of a batch that several processes have parts of."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lit_transformer.blocks.norms import BatchNorm


class SharedStatistics(Callback):
    """Has ``BatchNorm`` normalise the tokens of all processes together; every task brings it along."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The network is built, and processes know each other."""
        ranks = trainer.distributed_sampler_kwargs or {}  # those that see different data
        normalise_together(pl_module, ranks.get("num_replicas", 1))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the network as it was."""
        normalise_together(pl_module, 1)


def normalise_together(network: nn.Module, processes: int) -> None:
    """Tells every ``BatchNorm`` how many processes have parts of each batch."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.processes = processes
