"""Experimental: one row's tokens spread over devices, with all weights on each (context parallelism).

Every device embeds, normalises and multiplies its own part of the sequence; keys and values of all parts are gathered
where its queries look at them, as in Llama 3's training (Llama team, 2024, arXiv:2407.21783, section 3.3.2).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.embedding import Head
from lit_transformer.blocks.gated_attention import GatedAttention
from lit_transformer.blocks.kernels import EagerKernel, FastestKernel, SdpaKernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.loss import TokenLoss
from lit_transformer.blocks.moe import MixtureOfExperts
from lit_transformer.blocks.norms import BatchNorm
from lit_transformer.blocks.position import Position, Randomised
from lit_transformer.blocks.stack import Stack
from lit_transformer.dims import SizeError
from lit_transformer.errors import UserError
from lit_transformer.networks.base import Network
from lit_transformer.networks.decoder_only import DecoderOnly
from lit_transformer.training.checkpoint_forms import CheckpointForm
from lit_transformer.training.layout import Layout
from lit_transformer.training.sharding import fully_sharded, materialise
from lit_transformer.training.strategy import Sharded


class ContextParallel(Sharded):
    """Experimental: ``size`` devices share each row's tokens; weights are spread over all devices as FSDP2 does.

    For rows whose activations do not fit on one device. In evaluation each device reads whole rows.

    Args:
        size: Devices that share each row.
        process_group_backend: ``nccl``, ``gloo``; left out: what the device has.
        checkpoints: As of ``Sharded``.
    """

    def __init__(
        self, size: int = 2, process_group_backend: str | None = None, checkpoints: CheckpointForm | None = None
    ) -> None:
        super().__init__(size, process_group_backend=process_group_backend, checkpoints=checkpoints)

    def layout(self, name: str, devices: int) -> Layout:
        """See the base class."""
        return Layout(name, self.divide(devices), context=self.tensor_parallel, stage=3)

    def spread(self, task: Any, network: Network) -> None:
        """Weights over all devices, tokens over those that share a row."""
        mesh = self.device_mesh
        assert isinstance(mesh, DeviceMesh)
        parts = Parts(mesh["tensor_parallel"].get_group())
        for module in network.modules():
            if isinstance(module, Stack):
                module.parts = parts
        fully_sharded(network, mesh[("data_parallel", "tensor_parallel")]._flatten("all_devices"), self.policy)
        materialise(network, torch.initial_seed(), self.root_device)
        task.loss = PartLoss(task.loss, parts)


def check(network: Network, devices: int, data: dict[str, Any]) -> None:
    """Refuses what would not give the same numbers.

    Raises:
        UserError: Naming the key.
    """
    part: object = None if type(network) is DecoderOnly else network
    for module in network.modules():
        if isinstance(module, Layer) and type(module.attention) not in (Attention, GatedAttention):
            part = module.attention
        elif isinstance(module, Position):  # what looks at the whole row does not know the parts of the others
            whole = module.has_bias or module.has_values or module.turns_all_keys or isinstance(module, Randomised)
            part = module if whole else part
        elif isinstance(module, BatchNorm | MixtureOfExperts):
            part = module
        elif isinstance(module, Stack) and not isinstance(module.kernel, FastestKernel | SdpaKernel | EagerKernel):
            part = module.kernel
    if part is not None:
        raise SizeError("trainer.strategy", f"context parallelism has no plan for {type(part).__name__}; valid: "
                        "DecoderOnly of Attention, rotary and absolute positions, any norm but BatchNorm, any "
                        "feed-forward but a mixture, FastestKernel, SdpaKernel, EagerKernel; or use FSDP2")  # fmt: skip
    length = data.get("block_size")
    if not isinstance(length, int) or length % devices:
        raise UserError(f"data.block_size: is {length}, which {devices} context-parallel devices cannot share; make it "
                        f"a multiple of {devices}")  # fmt: skip


class Parts:
    """How a sequence lies on the devices that share it: one behind the other.

    Args:
        group: Of these devices.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.size = dist.get_world_size(group)
        self.rank = dist.get_rank(group)

    def place(self, length: int) -> slice:
        """Where this device's tokens stand in a sequence of this length.

        Raises:
            UserError: They do not come out even.
        """
        if length % self.size:
            raise UserError(f"data.block_size: {length} tokens cannot be shared by {self.size} devices; make it a "
                            f"multiple of {self.size}")  # fmt: skip
        own = length // self.size
        return slice(own * self.rank, own * (self.rank + 1))

    def gather(self, x: Tensor) -> Tensor:
        """(B, H, T / size, K) of every device, one behind the other."""
        gathered: Tensor = _Gather.apply(x, self)  # type: ignore[no-untyped-call]
        return gathered

    def total(self, x: Tensor) -> Tensor:
        """The sum over the devices."""
        summed: Tensor = _Total.apply(x, self)  # type: ignore[no-untyped-call]
        return summed


class _Gather(torch.autograd.Function):
    """Forward: all parts; backward: what all devices have to say about this one's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts) -> Tensor:
        ctx.parts = parts
        found = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(parts.size)]
        dist.all_gather(found, x.contiguous(), group=parts.group)
        return torch.cat(found, 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        whole = g.contiguous().clone()
        dist.all_reduce(whole, group=ctx.parts.group)
        return whole[:, :, ctx.parts.place(g.shape[2])], None


class _Total(torch.autograd.Function):
    """Forward: the sum; backward: as many times as there are devices, which the mean over all of them undoes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts) -> Tensor:
        ctx.size = parts.size
        total = x.clone()
        dist.all_reduce(total, group=parts.group)
        return total

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return g * ctx.size, None


class PartLoss(TokenLoss):
    """Another loss of this device's tokens, added up over the devices that share the rows.

    Args:
        loss: The loss.
        parts: How the rows lie.
    """

    def __init__(self, loss: nn.Module, parts: Parts) -> None:
        super().__init__()
        self.loss = loss
        self.parts = parts

    def forward(self, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        """See the base class; whole rows are left as they are."""
        if hidden.shape[1] == targets.shape[1]:
            whole: Tensor = self.loss(hidden, head, targets)
            return whole
        return self.parts.total(self.loss(hidden, head, targets[:, self.parts.place(targets.shape[1])]))
