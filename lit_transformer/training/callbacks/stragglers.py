"""How long each rank is busy itself, apart from waiting for the others: who of them holds all up."""

import socket
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
from lightning.pytorch import Trainer
from torch import Tensor, nn

FAR = 1.5
"""A rank that takes this many times as long as the others' median, and ``LEAST`` more, holds them up."""

LEAST = 0.005
"""Seconds of a step."""


class OwnTime:
    """Seconds of a training loop that are not spent waiting for other ranks.

    Waiting is what is spent inside collective operations that Python calls (FSDP2, tensor parallelism, logging), and,
    under DDP, what is left of the backward pass once the last gradient of this rank is there. On accelerators the
    program runs ahead of the device, so that this is the time of the program alone.
    """

    def __init__(self) -> None:
        self.waited = 0.0
        self._undo: list[Callable[[], Any]] = []
        self._last_gradient = 0.0

    def start(self, trainer: Trainer, module: nn.Module) -> None:
        """Begins to look at collective operations and gradients."""
        kind: Any = torch.distributed.Work
        self._time(kind, "wait")
        self._time(collectives, "wait_tensor")
        if hasattr(trainer.strategy, "_ddp_kwargs"):
            for parameter in module.parameters():
                if parameter.requires_grad:
                    self._undo.append(parameter.register_post_accumulate_grad_hook(self._note).remove)

    def stop(self) -> None:
        """Leaves everything as it was."""
        for undo in reversed(self._undo):
            undo()
        self._undo = []

    def backward_done(self) -> None:
        """The backward pass is over: what is behind the last gradient was waiting."""
        if self._last_gradient:
            self.waited += time.perf_counter() - self._last_gradient
            self._last_gradient = 0.0

    def _note(self, parameter: Tensor) -> None:
        self._last_gradient = time.perf_counter()

    def _time(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.waited += time.perf_counter() - begun

        setattr(owner, name, timed)
        self._undo.append(lambda: setattr(owner, name, original))


def hosts_of_ranks(trainer: Trainer) -> list[str]:
    """Names of the machines, by rank; all ranks take part."""
    names: list[Any] = [socket.gethostname()] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(names, socket.gethostname())
    return names


def over_ranks(values: Sequence[float], trainer: Trainer) -> list[list[float]]:
    """These numbers of every rank, by rank; all ranks take part."""
    if trainer.world_size == 1:
        return [list(values)]
    device = trainer.strategy.root_device
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    rows = [torch.empty_like(mine) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(rows, mine)
    return [row.tolist() for row in rows]


def straggler(seconds: Sequence[float]) -> int | None:
    """The rank whose own time is far above the median of the others."""
    if len(seconds) < 2:
        return None
    slowest = max(range(len(seconds)), key=seconds.__getitem__)
    others = statistics.median(time for rank, time in enumerate(seconds) if rank != slowest)
    return slowest if seconds[slowest] > max(FAR * others, others + LEAST) else None
