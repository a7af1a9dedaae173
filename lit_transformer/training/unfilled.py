"""Running code on tensors that nothing is ever written to: its memory is counted, its arithmetic is left out."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

SMALL = 1024
"""Numbers up to which a tensor is computed with for real: statistics, counts, angles."""


class Unfilled(TorchDispatchMode):
    """Inside, floating-point work on larger tensors only makes its results' shapes.

    The tensors are plain ones on the device that is asked for, so the code under way takes the paths that it takes in
    earnest; their memory is reserved and never touched, which costs nothing. Ids, masks and other integers are real, so
    that what is decided by them is decided right. Numbers that come out mean nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        """Bytes of all tensors made inside that are still alive."""
        self.peak = 0
        """The most that there were at once since ``restart``."""
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def restart(self) -> None:
        """Begins to look for the peak anew."""
        self.peak = self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = {id(tensor.untyped_storage()) for tensor in given}
        result = self._result(func, args, kwargs, given)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage(), before)
        return result

    def _result(self, func: Any, args: Any, kwargs: dict[str, Any], given: list[Tensor]) -> Any:
        big = [tensor for tensor in given if tensor.is_floating_point() and tensor.numel() > SMALL]
        if not big and (given or not _makes_floats(func, kwargs)):
            return func(*args, **kwargs)
        returned = func._schema.returns
        if any(each.alias_info is not None and not each.alias_info.is_write for each in returned):
            return func(*args, **kwargs)  # a view
        if func._schema.is_mutable:
            written = [
                kwargs.get(each.name, args[i] if i < len(args) else None)
                for i, each in enumerate(func._schema.arguments)
                if each.alias_info is not None and each.alias_info.is_write
            ]
            return None if not returned else written[0] if len(returned) == 1 else tuple(written)
        try:
            shapes = func(*tree_map(_shape, args), **tree_map(_shape, kwargs))
        except (NotImplementedError, RuntimeError):
            return func(*args, **kwargs)  # its result's shape depends on numbers, or nobody wrote it down
        device = next((tensor.device for tensor in given), torch.device("cpu"))
        return tree_map(lambda leaf: _unfilled(leaf, device) if isinstance(leaf, Tensor) else leaf, shapes)

    def _count(self, storage: Any, before: set[int]) -> None:
        if id(storage) in before or self._known.get(id(storage)) is storage:
            return
        self._known[id(storage)] = storage
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.live -= size


def _makes_floats(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function without tensors to start from fills a tensor with floating-point numbers."""
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    return bool(dtype.is_floating_point) and not func._schema.name.startswith(("aten::arange", "aten::scalar_tensor"))


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def _unfilled(shape: Tensor, device: torch.device) -> Tensor:
    made = torch.empty_strided(shape.shape, shape.stride(), dtype=shape.dtype, device=device)
    return made if made.is_floating_point() else made.zero_()
