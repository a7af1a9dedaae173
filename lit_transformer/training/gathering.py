"""What looking at a network takes that is spread over ranks: whole weights for a while, means over all heads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Inside, a network that FSDP2 spreads has all its weights on every rank; all ranks must come in and go out.

    Each forward pass of a spread network is a collective operation. Texts end at other places on other ranks, so ranks
    that decode would wait for passes that never come. Tensor parallelism is left as it is: its ranks share every row.
    """
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
