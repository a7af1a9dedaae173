"""Experimental: the experts of a mixture spread over devices, tokens sent to them and back (GShard: Lepikhin et al.,
2020, arXiv:2006.16668). All other weights are spread as FSDP2 does."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from lit_transformer.blocks.context import Context
from lit_transformer.blocks.experts import Experts, GroupedLinear
from lit_transformer.blocks.moe import Dispatch, Dropless, MixtureOfExperts, combine
from lit_transformer.blocks.routing import Routing
from lit_transformer.blocks.stack import Stack
from lit_transformer.dims import SizeError
from lit_transformer.networks.base import Network
from lit_transformer.networks.decoder_only import DecoderOnly
from lit_transformer.training.checkpoint_forms import CheckpointForm
from lit_transformer.training.layout import Layout
from lit_transformer.training.sharding import materialise
from lit_transformer.training.strategy import Sharded


class ExpertParallel(Sharded):
    """Experimental: every device has its share of each layer's experts, and a part of each batch.

    Args:
        process_group_backend: ``nccl``, ``gloo``; left out: what the device has.
        checkpoints: As of ``Sharded``.
    """

    def __init__(self, process_group_backend: str | None = None, checkpoints: CheckpointForm | None = None) -> None:
        super().__init__(1, process_group_backend=process_group_backend, checkpoints=checkpoints)

    def layout(self, name: str, devices: int) -> Layout:
        """See the base class."""
        return Layout(name, self.divide(devices), experts=devices, stage=3)

    def spread(self, task: Any, network: Network) -> None:
        """Experts over the devices, each whole; the other weights as FSDP2 does."""
        mesh = self.device_mesh
        assert isinstance(mesh, DeviceMesh)
        data = mesh["data_parallel"]
        check(network, data.size())
        own: set[nn.Parameter] = set()
        for mixture in (module for module in network.modules() if isinstance(module, MixtureOfExperts)):
            for module in mixture.experts.modules():
                if isinstance(module, GroupedLinear):
                    own |= _share_out(module, data)
            mixture.dispatch = Exchange(data)
        options: dict[str, Any] = {"mesh": data, "mp_policy": MixedPrecisionPolicy(cast_forward_inputs=False)}
        for stack in (module for module in network.modules() if isinstance(module, Stack)):
            for layer in stack.layers:
                fully_shard(layer, ignored_params=own, **options)
        fully_shard(network, ignored_params=own, **options)
        materialise(network, torch.initial_seed(), self.root_device)


def check(network: Network, devices: int | None) -> None:
    """Refuses what has no experts, or experts that cannot be spread.

    Raises:
        SizeError: Naming the key.
    """
    mixtures = [module for module in network.modules() if isinstance(module, MixtureOfExperts)]
    if not mixtures or type(network) is not DecoderOnly:
        raise SizeError("trainer.strategy", "ExpertParallel spreads the experts of a DecoderOnly, and there are none; "
                        "add --config overlays/feed_forward/mixture, or use overlays/strategy/fsdp2")  # fmt: skip
    for mixture in mixtures:
        experts = next(m.weight.shape[0] for m in mixture.experts.modules() if isinstance(m, GroupedLinear))
        if devices is not None and experts % devices:
            raise SizeError("layer.feed_forward.n_experts", f"is {experts}, which {devices} devices do not divide; "
                            f"make it a multiple of {devices}")  # fmt: skip
        if not isinstance(mixture.dispatch, Dropless | Exchange):
            raise SizeError("layer.feed_forward.dispatch", f"ExpertParallel has no plan for "
                            f"{type(mixture.dispatch).__name__}; use Dropless")  # fmt: skip


def _share_out(module: GroupedLinear, mesh: DeviceMesh) -> set[nn.Parameter]:
    for name, parameter in list(module.named_parameters(recurse=False)):
        shared = nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)]))
        module.register_parameter(name, shared)
    return set(module.parameters(recurse=False))


class Exchange(Dispatch):
    """Every token is served: each device sends its rows to the experts' devices and gets them back.

    Args:
        mesh: The devices, one dimension.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self.group, self.size = mesh.get_group(), mesh.size()

    def __call__(
        self, x: Tensor, routing: Routing, experts: Experts, context: Context
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class."""
        n_experts, k = routing.scores.shape[-1], routing.chosen.shape[-1]
        expert = routing.chosen.flatten()
        order = expert.argsort(stable=True)
        rows = torch.bincount(expert, minlength=n_experts)
        theirs = torch.empty_like(rows)  # by sender, then by expert of this device
        dist.all_to_all_single(theirs, rows, group=self.group)
        sent = rows.view(self.size, -1).sum(1).tolist()
        come = theirs.view(self.size, -1).sum(1).tolist()
        there: Tensor = _Exchanged.apply(x[order // k], sent, come, self.group)  # type: ignore[no-untyped-call]
        own = torch.arange(n_experts // self.size, device=x.device).repeat(self.size).repeat_interleave(theirs)
        sorting = own.argsort(stable=True)
        ends = theirs.view(self.size, -1).sum(0).cumsum(0).to(torch.int32)
        with local_weights(experts, self.size):
            y = experts(there[sorting], ends, context)
        y = torch.empty_like(y).index_copy(0, sorting, y)
        y = _Exchanged.apply(y, come, sent, self.group)  # type: ignore[no-untyped-call]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        return combine(y[back].view(-1, k, y.shape[-1]), routing.weights), {}


class local_weights:  # noqa: N801 a context manager, like those of torch
    """Inside, the experts' products read this device's weights; their gradient is the mean over devices, as others'."""

    def __init__(self, experts: Experts, devices: int) -> None:
        self.modules = [module for module in experts.modules() if isinstance(module, GroupedLinear)]
        self.devices = devices

    def __enter__(self) -> None:
        self.kept = [dict(module._parameters) for module in self.modules]
        for module, kept in zip(self.modules, self.kept, strict=True):
            for name, value in kept.items():
                if isinstance(value, DTensor):
                    del module._parameters[name]
                    object.__setattr__(module, name, _Mean.apply(value.to_local(), self.devices))

    def __exit__(self, *_: Any) -> None:
        for module, kept in zip(self.modules, self.kept, strict=True):
            for name, value in kept.items():
                if isinstance(value, DTensor):
                    object.__delattr__(module, name)
                    module._parameters[name] = value


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, devices: int) -> Tensor:
        ctx.devices = devices
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return g / ctx.devices, None


class _Exchanged(torch.autograd.Function):
    """Rows to where they belong; gradients back to where they came from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], come: list[int], group: Any) -> Tensor:
        ctx.way = (come, sent, group)
        result = x.new_empty(sum(come), x.shape[-1])
        dist.all_to_all_single(result, x.contiguous(), come, sent, group=group)
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        sent, come, group = ctx.way
        result = g.new_empty(sum(come), g.shape[-1])
        dist.all_to_all_single(result, g.contiguous(), come, sent, group=group)
        return result, None, None, None
