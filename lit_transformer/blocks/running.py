"""State that forward passes move: running statistics and counts.

A pass may be a repetition, run to get back what was not kept for the backward pass (recompute). Values and gradients
need not know, but running state must move once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any, Self

import torch
from torch import nn

_thread = local()
# The backward pass of an accelerator runs in a thread of its own, and so do the repetitions in it.


def is_recomputing() -> bool:
    """True inside of ``recomputing``."""
    return getattr(_thread, "depth", 0) > 0


@contextmanager
def recomputing() -> Iterator[None]:
    """Marks what is run inside as a repetition."""
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1


class RunningState(nn.Module):
    """Base of modules with such state: its numbers stay in float32 where the network is cast to a narrower type.

    A step of 0.001 is lost on a number around 1 in bfloat16, and the average would stand still.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.is_floating_point() and buffer.dtype != torch.float32:
                self._buffers[name] = buffer.float()
        return self
