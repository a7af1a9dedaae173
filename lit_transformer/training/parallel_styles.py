"""How the parts of a network lie on tensor-parallel devices, and how the stream of a stack goes through them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle, RowwiseParallel

from lit_transformer.blocks.stack import Stack
from lit_transformer.errors import UserError
from lit_transformer.training.generators import Generators

TABLES = ("weight", "ngrams")
"""Tables of embeddings in which rows are looked up by number."""


class Stream:
    """How the stream of a stack lies on the devices: each has its part of the sequence, or all of it.

    All of it where the length does not divide and no gradient is wanted: decoding goes a token at a time.
    """

    def __init__(self) -> None:
        self.layout: Placement = Shard(1)
        self._common: tuple[torch.device, Generators] | None = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def draw_apart(self, device: torch.device, mesh: DeviceMesh) -> None:
        """From here on each device draws its own random numbers, which follow from those that all draw alike."""
        words = [int(torch.randint(2**62, ())), mesh.get_local_rank()]
        self._common = device, Generators.capture(device)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def draw_alike(self) -> None:
        """Ends ``draw_apart``: the devices' generators stand where they stood."""
        if self._common is not None:
            device, generators = self._common
            generators.restore(device)
            self._common = None


class Gathered(ParallelStyle):
    """The whole sequence goes in, as a DTensor, so that the gradients of several products are added up once.

    Args:
        stream: How it comes.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            x = DTensor.from_local(given[0], device_mesh, [self.stream.layout], run_check=False)
            return (x.redistribute(placements=[Replicate()]), *given[1:])

        module.register_forward_pre_hook(enter)
        return module


class Rowwise(RowwiseParallel):
    """Each device multiplies what it has; the sums go back into the stream.

    Args:
        stream: How it goes on.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def _prepare_output_fn(  # type: ignore[override]
        self, output_layouts: Any, use_local_output: bool, module: nn.Module, y: Any, device_mesh: DeviceMesh
    ) -> Any:
        return y.redistribute(placements=[self.stream.layout]).to_local()


class OverSequence(ParallelStyle):
    """A norm of a part of the sequence, or of some of the heads: dimension 1 is shared out, its weights are not.

    Args:
        stream: How the sequence comes.
        gathered: Whether the output is the whole sequence.
    """

    def __init__(self, stream: Stream, gathered: bool = False) -> None:
        super().__init__()
        self.stream = stream
        self.gathered = gathered

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _replicate(module, device_mesh)

        def enter(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (DTensor.from_local(given[0], device_mesh, [self.stream.layout], run_check=False), *given[1:])

        def leave(module: nn.Module, given: Any, y: Any) -> Any:
            if self.gathered:
                self.stream.draw_alike()
            return (y.redistribute(placements=[Replicate()]) if self.gathered else y).to_local()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
        return module


class EnterSequence(ParallelStyle):
    """The first layer takes its part of the whole sequence.

    Args:
        stream: How it goes on.
        stack: Whose layer it is.
    """

    def __init__(self, stream: Stream, stack: Stack) -> None:
        super().__init__()
        self.stream = stream
        self.parts = list(stack.modules())

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            x = given[0]
            even = x.shape[1] % device_mesh.size() == 0
            if not even and torch.is_grad_enabled():
                raise UserError(f"data.block_size: {x.shape[1]} tokens cannot be shared by {device_mesh.size()} "
                                f"tensor-parallel devices; make it a multiple of {device_mesh.size()}")  # fmt: skip
            self.stream.layout = Shard(1) if even else Replicate()
            if even and module.training and any(getattr(part, "dropout", 0.0) for part in self.parts):
                self.stream.draw_apart(x.device, device_mesh)
            x = DTensor.from_local(x, device_mesh, [Replicate()], run_check=False)
            return (x.redistribute(placements=[self.stream.layout]).to_local(), *given[1:])

        module.register_forward_pre_hook(enter)
        return module


class VocabularyEmbedding(ParallelStyle):
    """Each device knows some tokens' vectors, and some n-grams'; see ``blocks.embedding.look_up``."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        for name in TABLES:
            if hasattr(module, name):
                whole = getattr(module, name).detach()
                module.register_parameter(name, nn.Parameter(distribute_tensor(whole, device_mesh, [Shard(0)])))
        return module


class VocabularyHead(ParallelStyle):
    """Each device scores some tokens. In training logits stay shared out, and the loss is taken of the parts."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module.weight, DTensor):
            assert isinstance(module.weight, Tensor)
            module.weight = nn.Parameter(distribute_tensor(module.weight.detach(), device_mesh, [Shard(0)]))

        def enter(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (DTensor.from_local(given[0], device_mesh, [Replicate()], run_check=False),)

        def leave(module: nn.Module, given: Any, y: Any) -> Any:
            return y if torch.is_grad_enabled() else y.full_tensor()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
        return module


def _replicate(module: nn.Module, mesh: DeviceMesh) -> None:
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            part.register_parameter(name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Replicate()])))
