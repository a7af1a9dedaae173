"""Parameters of which a process may hold a part: of FSDP2 and tensor parallelism, or of DeepSpeed's ZeRO-3."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def is_sharded(parameter: Tensor) -> bool:
    """Whether this process holds a part of it only: of a DTensor, or of what DeepSpeed's ZeRO-3 shared out."""
    return hasattr(parameter, "device_mesh") or hasattr(parameter, "ds_tensor")


def shape_of(parameter: Tensor) -> torch.Size:
    """The shape of the whole parameter, which DeepSpeed leaves empty while it is shared out."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be sharded; writing to it writes to the tensor."""
    if hasattr(tensor, "ds_tensor"):
        return tensor.ds_tensor  # type: ignore[no-any-return]
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def held(parameter: Tensor) -> Tensor:
    """What this process holds of a parameter: its part of DeepSpeed's, else the tensor itself, a DTensor too."""
    return parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter.detach()


def hold(parameter: Tensor, value: Tensor) -> None:
    """Writes what ``held`` returns."""
    held(parameter).copy_(value)
    _release(parameter)


def _release(parameter: Tensor) -> None:
    """Gives back the whole copy that DeepSpeed has left, so that it is gathered anew from what was written."""
    if hasattr(parameter, "ds_tensor") and parameter.numel():
        parameter.partition()  # type: ignore[attr-defined]


def assembled(parameter: Tensor, part: Tensor) -> Tensor:
    """What goes into a checkpoint of parts like those of a parameter: of DeepSpeed's the whole tensor, in which all
    ranks take part; a DTensor as it is, which the strategy puts together, or writes in parts."""
    if not hasattr(parameter, "ds_tensor"):
        return part
    group = parameter.ds_process_group  # type: ignore[attr-defined]
    mine = part.to(parameter.device)
    parts = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(parts, mine, group=group)
    return torch.cat(parts)[: shape_of(parameter).numel()].reshape(shape_of(parameter))


def cut(parameter: Tensor, whole: Tensor) -> Tensor:
    """This process's part of ``whole``, which all of them have alike, as ``local`` holds the parameter's.

    ``whole`` may be one that lies in a folder of parts: no more than the part is read.
    """
    if hasattr(whole, "part_of"):
        return whole.part_of(parameter)  # type: ignore[no-any-return]
    if hasattr(parameter, "ds_tensor"):
        part = torch.zeros_like(local(parameter), dtype=whole.dtype)  # the last one is filled up
        there = part.numel() * torch.distributed.get_rank(parameter.ds_process_group)  # type: ignore[attr-defined]
        mine = whole.flatten()[there : there + part.numel()]
        part[: mine.numel()].copy_(mine)
        return part
    if not hasattr(parameter, "device_mesh"):
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(whole.to(parameter.device), mesh, placements, src_data_rank=None).to_local()


def fill(tensor: Tensor, whole: Tensor) -> None:
    """Writes this process's part of ``whole`` into a tensor, sharded or not."""
    local(tensor).copy_(cut(tensor, whole))
    _release(tensor)


def named_state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a state dict names, as the parameters and buffers themselves, shared ones under every name."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            yield name, parameters.get(name, value)


def whole_of(tensor: Tensor) -> Tensor:
    """A copy of the whole tensor on every rank; all of them take part."""
    if hasattr(tensor, "ds_tensor"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()
