"""What a checkpoint of a network that is spread over devices is: one file, or a folder of parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_transformer.checkpoints.sharded import write_sharded


class CheckpointForm:
    """Base of the forms. Whatever the form, a run goes on with another number of devices, or under another strategy."""

    def save(self, checkpoint: dict[str, Any], path: Path, strategy: Strategy) -> None:
        """Writes a checkpoint; all ranks call it.

        Args:
            checkpoint: Its content, of which each rank holds a part where there are DTensors.
            path: What it is called.
            strategy: Whose ranks they are.
        """
        raise NotImplementedError


class OneFile(CheckpointForm):
    """One file with whole tensors, the same as a single process writes: the first rank gathers and writes them."""

    def save(self, checkpoint: dict[str, Any], path: Path, strategy: Strategy) -> None:
        """See the base class."""
        whole = _whole(checkpoint, strategy.is_global_zero)
        if strategy.is_global_zero:
            strategy.checkpoint_io.save_checkpoint(whole, path)


class Parts(CheckpointForm):
    """A folder in the layout of ``torch.distributed.checkpoint``, which must lie where all ranks see it.

    Every rank writes its own part of weights, moments and averages, and reads no more than its own.
    """

    def save(self, checkpoint: dict[str, Any], path: Path, strategy: Strategy) -> None:
        """See the base class."""
        write_sharded(path, checkpoint, step=int(checkpoint["global_step"]))


def _whole(state: Any, keep: bool) -> Any:
    """Nested plain data with whole tensors on the CPU, or with none on ranks that do not keep them."""
    if isinstance(state, Tensor):
        whole = (state.full_tensor() if isinstance(state, DTensor) else state).detach()
        return whole.cpu() if keep else None
    if isinstance(state, Mapping):
        return {key: _whole(value, keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_whole(value, keep) for value in state]
    return state
