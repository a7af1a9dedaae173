"""Fine-tuning by adapters."""

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lit_transformer.errors import UserError
from lit_transformer.training.adapters import adapt


class LoRA(Callback):
    """Trains changes of low rank of some products, and nothing else (Hu et al., 2021, arXiv:2106.09685).

    The checkpoint holds weights and adapters apart, so that a run goes on exactly; everything that reads it folds them
    together. ``lit-transformer export --layout peft`` writes the adapters alone.

    Args:
        rank: Rank of the changes.
        alpha: Their scale is alpha / rank; left out: twice the rank.
        parts: Last names of the products: query, key, value, output, gate, up, down.
        dropout: Share of an adapter's input that is dropped in training.
    """

    magnitude = False

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        parts: Sequence[str] = ("query", "value"),
        dropout: float = 0.0,
    ) -> None:
        if rank < 1:
            raise UserError(f"LoRA.rank: is {rank}, must be at least 1")
        self.rank = rank
        self.alpha = 2.0 * rank if alpha is None else alpha
        self.parts = [parts] if isinstance(parts, str) else list(parts)
        self.dropout = dropout

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Adapts the network as soon as it is built."""
        if stage != "fit":
            return
        if hasattr(pl_module, "network"):
            self.adapt(pl_module.network)  # type: ignore[arg-type]
        else:
            pl_module.on_built.append(self.adapt)  # type: ignore[operator, union-attr]

    def adapt(self, network: nn.Module) -> None:
        """Freezes the network and adds the adapters, once."""
        if not any(name.endswith("lora_A") for name, _ in network.named_parameters()):
            adapt(network, self.rank, self.alpha, self.parts, self.dropout, self.magnitude)


class DoRA(LoRA):
    """LoRA of the directions of rows, and their lengths (Liu et al., 2024, arXiv:2402.09353).

    Args:
        rank: Rank of the changes.
        alpha: Their scale is alpha / rank; left out: twice the rank.
        parts: Last names of the products: query, key, value, output, gate, up, down.
        dropout: Share of an adapter's input that is dropped in training.
    """

    magnitude = True
