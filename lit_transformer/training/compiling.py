"""``torch.compile``, layer by layer and in place: names of parameters, and so checkpoints, stay as they are."""

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_transformer.blocks import Stack


class Compile(Callback):
    """Compiles every layer of the network; the first steps take a minute, the later ones less than before.

    Layers of one kind share what is compiled, so that depth does not cost. Compiled anew is what comes in new shapes.

    Args:
        dynamic: Whether lengths and numbers of rows may change without compiling anew; left out: found out on the way.
    """

    def __init__(self, dynamic: bool | None = None) -> None:
        self.dynamic = dynamic

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The network is built, and spread over devices where it is."""
        for stack in (module for module in pl_module.modules() if isinstance(module, Stack)):
            for layer in stack.layers:
                layer.compile(dynamic=self.dynamic)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the network as it was."""
        for stack in (module for module in pl_module.modules() if isinstance(module, Stack)):
            for layer in stack.layers:
                layer._compiled_call_impl = None
