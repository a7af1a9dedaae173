"""How a run is spread over devices, in numbers; each strategy says its own."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """How a run is spread over devices.

    Args:
        name: What the strategy is called.
        data: Groups of devices that see different data.
        tensor: Devices that share each row's products.
        context: Devices that share each row's tokens.
        experts: Devices that share out each mixture's experts, which are nowhere gathered.
        stage: What is shared out of the weights, as ZeRO counts: 1: optimizer state; 2: gradients too; 3: weights too,
            as FSDP2.
        masters: Whether the optimizer keeps float32 weights of its own, as DeepSpeed's does.
        offload: What lies in the memory of the host: ``nothing``, ``optimizer`` (and its step), ``all``.
    """

    name: str
    data: int = 1
    tensor: int = 1
    context: int = 1
    experts: int = 1
    stage: int = 0
    masters: bool = False
    offload: str = "nothing"

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.data * self.tensor * self.context

    @property
    def shares(self) -> int:
        """Parts that weights, gradients or optimizer state are cut into, beside tensor parallelism."""
        return self.data * self.context


def layout_of(strategy: Any, name: str, devices: int) -> Layout:
    """How a strategy spreads a run over so many devices; one that does not say repeats it on each (DDP).

    Raises:
        UserError: The devices do not come out even.
    """
    said = getattr(strategy, "layout", None)
    found: Layout = Layout(name, data=devices) if said is None else said(name, devices)
    return found
