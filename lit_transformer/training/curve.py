"""The training curve of a run, for comparing runs: loss, gradients and samples of each optimizer step."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_transformer.training.gathering import whole_gradient
from lit_transformer.training.run_state import at_step_boundary


@dataclass(frozen=True)
class Step:
    """What an optimizer step was.

    Args:
        loss: Mean over the target tokens of its window, on all ranks.
        gradients: Length of the gradient of each parameter, before clipping.
        tokens: Target tokens of its window, on all ranks.
        samples: Ids of the samples in it.
        draws: Whether the forward or backward pass drew random numbers.
    """

    loss: float
    gradients: dict[str, float]
    tokens: int
    samples: frozenset[int] = field(default_factory=frozenset)
    draws: bool = False


class Curve(Callback):
    """Writes a JSON line per optimizer step; each rank into a file of its own, as samples differ.

    Args:
        path: The file of the first rank; the others' have their number behind it.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._samples: list[int] = []
        self._gradients: dict[str, float] = {}
        self._state: Tensor | None = None
        self._draws = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes the samples, and where the random generator stands."""
        self._samples += [int(each) for each in batch.ids if each >= 0]
        self._state = _generator(pl_module.device)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measures the gradients, whole ones where they are spread over devices."""
        self._draws = self._state is not None and not torch.equal(self._state, _generator(pl_module.device))
        gradients = {name: whole_gradient(p, trainer) for name, p in pl_module.named_parameters()}
        self._gradients = {name: float(each.double().norm()) for name, each in gradients.items() if each is not None}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the line at the end of a window."""
        if not at_step_boundary(trainer):
            return
        line = {
            "loss": float(trainer.callback_metrics["train/loss"]),
            "gradients": self._gradients,
            "tokens": int(batch.window_tokens),
            "samples": self._samples,
            "draws": self._draws,
        }
        with _of_rank(self.path, trainer.global_rank).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._samples, self._gradients = [], {}

    @staticmethod
    def read(path: str | Path) -> list[Step]:
        """The steps; samples are those of all ranks."""
        ranks = [_lines(Path(path))]
        while (other := _of_rank(Path(path), len(ranks))).exists():
            ranks.append(_lines(other))
        return [
            Step(
                loss=lines[0]["loss"],
                gradients=lines[0]["gradients"],
                tokens=lines[0]["tokens"],
                samples=frozenset(sample for line in lines for sample in line["samples"]),
                draws=any(line["draws"] for line in lines),
            )
            for lines in zip(*ranks, strict=True)
        ]


def _generator(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _of_rank(path: Path, rank: int) -> Path:
    return path if rank == 0 else path.with_name(f"{path.name}.{rank}")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
