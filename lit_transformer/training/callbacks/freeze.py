"""Leaving parts of a network as they are."""

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lit_transformer.errors import UserError


class Freeze(Callback):
    """Keeps parameters at their values, usually those of another run (``--init_from``). They get no gradient, and the
    optimizer does not see them.

    Args:
        parts: Names of parts of the network, such as ``embedding`` or ``stack.layers.0``; ``stack.layers.0-3`` are
            several layers.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = [parts] if isinstance(parts, str) else list(parts)
        if not self.parts:
            raise UserError("Freeze.parts: names no part of the network")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freezes the network as soon as it is built: a strategy looks at what has a gradient when it wraps it."""
        if stage != "fit":
            return
        if hasattr(pl_module, "network"):
            self.freeze(pl_module.network)  # type: ignore[arg-type]
        else:
            pl_module.on_built.append(self.freeze)  # type: ignore[operator, union-attr]

    def freeze(self, network: nn.Module) -> None:
        """Turns off the gradients.

        Raises:
            UserError: A name that is no part of the network.
        """
        for part in self.parts:
            for name in _spelt_out(part):
                inside = [p for key, p in network.named_parameters() if key == name or key.startswith(f"{name}.")]
                if not inside:
                    raise UserError(f"Freeze.parts: the network has no part {name!r}; there are: {_parts(network)}")
                for parameter in inside:
                    parameter.requires_grad_(False)


def _spelt_out(part: str) -> list[str]:
    """``stack.layers.0-3`` as four names."""
    before, _, last = part.rpartition(".")
    first, dash, stop = last.partition("-")
    if not (dash and first.isdecimal() and stop.isdecimal()):
        return [part]
    return [f"{before}.{number}" for number in range(int(first), int(stop) + 1)]


def _parts(network: nn.Module) -> str:
    names = []
    for name, child in network.named_children():
        layers = getattr(child, "layers", None)
        names.append(f"{name} ({name}.layers.0-{len(layers) - 1})" if isinstance(layers, nn.ModuleList) else name)
    return ", ".join(names)
