"""How the C library hands out the memory of a CPU run."""

import ctypes
import platform
from typing import Any, Literal

from lightning.pytorch import Callback

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h>


def keep_freed_memory() -> bool:
    """Lets glibc serve big tensors from its heap and never give them back to the system; whether that could be set.

    A tensor of megabytes is otherwise mapped anew at each step, and the system clears its pages one by one: with a
    vocabulary of 50,000 that is a tenth to a quarter of a step. The price is a higher resident size, since the heap has
    gaps. It changes no number and holds for the rest of the process. Linux with glibc only.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


class Allocator(Callback):
    """Sets the C library's allocator for training on a CPU; ``scripts/benchmark.py train`` measures what it is worth.

    Args:
        policy: "keep" holds on to freed memory (faster, more resident memory); "system" leaves the allocator alone.
    """

    def __init__(self, policy: Literal["keep", "system"] = "keep") -> None:
        self.policy = policy

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Before the network is built."""
        if self.policy == "keep" and stage == "fit" and trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
