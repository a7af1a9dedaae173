"""What looking at a network takes that is spread over ranks: whole weights for a while, means over all heads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def is_spread(network: nn.Module) -> bool:
    """Whether weights of a network are spread over ranks, so that all must take part in a forward pass."""
    return any(hasattr(p, "ds_id") or isinstance(p, DTensor) for p in network.parameters())


def whole_weight(parameter: nn.Parameter, trainer: Trainer) -> Tensor:
    """A parameter, gathered where the strategy spreads it; all ranks take part."""
    partitions = getattr(trainer.strategy, "partitions", None)
    value: Tensor = parameter.detach() if partitions is None else partitions.whole(parameter)
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_gradient(parameter: nn.Parameter, trainer: Trainer) -> Tensor | None:
    """Its gradient before an optimizer step, gathered likewise; none where it has none."""
    partitions = getattr(trainer.strategy, "partitions", None)
    value: Tensor | None = parameter.grad if partitions is None else partitions.whole_gradient(parameter)
    return value.full_tensor() if isinstance(value, DTensor) else value


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Inside, a network that FSDP2 or ZeRO-3 spreads has all its weights on every rank; all ranks come in and go out.

    Each forward pass of a spread network is a collective operation. Texts end at other places on other ranks, so ranks
    that decode would wait for passes that never come. Tensor parallelism is left as it is: its ranks share every row.
    """
    if any(hasattr(parameter, "ds_id") for parameter in network.parameters()):
        with _of_deepspeed(network):
            yield
        return
    parts = [module for module in network.modules() if isinstance(module, FSDPModule)]
    before = [_reshards(part) for part in parts]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part, reshards in zip(parts, before, strict=True):
            part.set_reshard_after_forward(reshards, recurse=False)
            part.reshard()


@contextmanager
def _of_deepspeed(network: nn.Module) -> Iterator[None]:
    """Without DeepSpeed's hooks, which give the weights of a module back as soon as it is done."""
    import deepspeed

    hooks = [each for module in network.modules() for each in (module._forward_pre_hooks, module._forward_hooks)]
    taken = [{key: hook for key, hook in each.items() if _is_deepspeeds(hook)} for each in hooks]
    with deepspeed.zero.GatheredParameters(list(network.parameters())):
        for each, theirs in zip(hooks, taken, strict=True):
            for key in theirs:
                del each[key]
        try:
            yield
        finally:
            for each, theirs in zip(hooks, taken, strict=True):
                each.update(theirs)


def _is_deepspeeds(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("deepspeed.")


def _reshards(part: FSDPModule) -> bool:
    group = part._get_fsdp_state()._fsdp_param_group
    return group is not None and group._reshard_after_forward


def over_heads(mean: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """The mean over all heads of what is the mean over those of this device; the others have as many."""
    if mesh is None or mesh["tensor_parallel"].size() == 1:
        return mean
    mean = mean.clone()
    torch.distributed.all_reduce(mean, group=mesh["tensor_parallel"].get_group())
    return mean / mesh["tensor_parallel"].size()
