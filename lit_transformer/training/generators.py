"""The states of all random generators of a process, as plain data."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Generators:
    """Where torch's (CPU and accelerator), NumPy's and Python's generators stand.

    Capturing is a copy of a few kilobytes, so that it can be done at every step.
    """

    torch_cpu: torch.Tensor
    accelerator: torch.Tensor | None
    numpy: tuple[Any, ...]
    python: tuple[Any, ...]

    @classmethod
    def capture(cls, device: torch.device) -> "Generators":
        """The states now, of this process and its device."""
        return cls(
            torch.get_rng_state(),
            None if device.type == "cpu" else _backend(device).get_rng_state(*_which(device)),
            np.random.get_state(legacy=True),  # type: ignore[arg-type]
            random.getstate(),
        )

    @staticmethod
    def part(rank: int) -> None:
        """Seeds this process's generators by its own seed and ``rank``, so that ranks that share a seed draw apart.

        The first rank's stay as they are: a run on one process draws what the first of many does.
        """
        if rank:
            words = np.random.SeedSequence([torch.initial_seed() % 2**64, rank]).generate_state(4)
            torch.manual_seed(int(words[0]) << 32 | int(words[1]))
            np.random.seed(int(words[2]))
            random.seed(int(words[3]))

    def restore(self, device: torch.device) -> None:
        """Sets the process's generators to these states."""
        torch.set_rng_state(self.torch_cpu)
        if self.accelerator is not None and device.type != "cpu":
            _backend(device).set_rng_state(self.accelerator, *_which(device))
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    def to_plain(self) -> dict[str, Any]:
        """Tensors, lists and numbers, for a checkpoint."""
        name, keys, *rest = self.numpy
        version, words, gauss = self.python
        return {
            "torch": self.torch_cpu,
            "accelerator": self.accelerator,
            "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
            "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        }

    @classmethod
    def from_plain(cls, state: dict[str, Any]) -> "Generators":
        """What ``to_plain`` gave."""
        name, keys, *rest = state["numpy"]
        version, words, gauss = state["python"]
        numpy = (name, keys.numpy().astype(np.uint32), *rest)
        return cls(state["torch"], state["accelerator"], numpy, (version, tuple(words.tolist()), gauss))


def _backend(device: torch.device) -> Any:
    return getattr(torch, device.type)


def _which(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)
