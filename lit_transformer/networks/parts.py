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


def keep_part(parameter: Tensor, whole: Tensor) -> None:
    """Writes this process's part of ``whole``, which all of them have alike."""
    part = local(parameter)
    if hasattr(parameter, "ds_tensor"):
        there = part.numel() * torch.distributed.get_rank(parameter.ds_process_group)  # type: ignore[attr-defined]
        size = max(0, min(part.numel(), whole.numel() - there))  # the last part is filled up
        part[:size].copy_(whole.flatten()[there : there + size])
        return
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    mesh, placements = parameter.device_mesh, parameter.placements
    own = distribute_tensor(whole.to(parameter.device), mesh, placements, src_data_rank=None)
    part.copy_(own.to_local())


def fill(tensor: Tensor, whole: Tensor) -> None:
    """Writes all that this process holds of a tensor, sharded or not."""
    if is_sharded(tensor):
        keep_part(tensor, whole.to(local(tensor).dtype))
    else:
        tensor.copy_(whole)


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
