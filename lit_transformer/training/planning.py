"""What a training run will need, before it starts: parameters, memory, work."""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from lit_transformer.blocks.embedding import Head
from lit_transformer.data.batch import Batch
from lit_transformer.data.bucketing import BucketedLoader
from lit_transformer.data.loaders import EndlessLoader, Share
from lit_transformer.data.module import SharedData
from lit_transformer.data.streaming import StreamLoader
from lit_transformer.tasks.base import Task
from lit_transformer.training.callbacks.freeze import Freeze
from lit_transformer.training.callbacks.lora import LoRA
from lit_transformer.training.ema import EMA
from lit_transformer.training.footprint import Memory
from lit_transformer.training.recompute import Recompute
from lit_transformer.training.strategy import Sharded
from lit_transformer.training.unfilled import Unfilled


def parameters_by_part(task: nn.Module) -> dict[str, int]:
    """Number of parameters by component, shared ones once."""
    found: dict[str, int] = {}
    for name, parameter in task.named_parameters():
        part = _part(name)
        found[part] = found.get(part, 0) + parameter.numel()
    return found


def _part(name: str) -> str:
    words = name.removeprefix("network.").split(".")
    for word in words:
        if word in ("attention", "cross_attention", "feed_forward", "embedding", "position", "head", "label_head"):
            return "attention" if word == "position" and "attention" in words else word
    return "norms" if any("norm" in word or word in ("residual", "norms") for word in words) else words[0]


AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WEIGHTS = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
"""Types of products and of weights, by precision; float32 the others."""


def prepare(task: Task, callbacks: Sequence[Callback]) -> None:
    """What callbacks do to a network before it is built: freezing, adapters."""
    for callback in callbacks:
        if isinstance(callback, Freeze | LoRA):
            callback.setup(Any, task, "fit")  # type: ignore[arg-type]


def traced_memory(
    task: Task,
    batch: Batch,
    micro_batches: int = 1,
    precision: str = "32-true",
    callbacks: Sequence[Callback] = (),
) -> Memory:
    """What a training step on one device takes, found by running it without its arithmetic.

    Two steps are run, as gradients and optimizer state are there from the second on. The task is built inside, anew
    where it was before, so that no weights are drawn.

    Args:
        task: The task, before ``configure_model``, or after it was in here.
        batch: The largest batch that it will see.
        micro_batches: How many of them a step accumulates.
        precision: Of the Trainer.
        callbacks: Those of the recipe: recomputing, averaging.
    """
    autocast = AUTOCAST.get(precision)
    with Unfilled() as mode, default_type(WEIGHTS.get(precision, torch.float32)):
        if hasattr(task, "network"):
            del task.network
        task.configure_model()
        task.train()
        for callback in callbacks:
            if isinstance(callback, Recompute):
                callback.on_fit_start(Any, task)  # type: ignore[arg-type]
        weights = bytes_of([*task.parameters(), *task.buffers()])
        optimizer = task.configure_optimizers()["optimizer"]
        task.micro_batch_loss = _plain_loss  # type: ignore[method-assign]
        for _ in range(2):
            mode.restart()
            for number in range(min(2, micro_batches)):  # all are alike from the second on
                with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                    loss: Any = task.training_step(batch, 0)
                if number == 0:
                    optimizer.zero_grad()
                loss.backward()
                del loss
            optimizer.step()
        state = bytes_of(value for values in optimizer.state.values() for value in values.values())
        gradients = bytes_of(parameter.grad for parameter in task.parameters())
        rest = mode.peak - weights - state - gradients
        logits = min(rest, _logits(task, batch))
        averages = sum(bytes_of(task.parameters()) for callback in callbacks if isinstance(callback, EMA))
        return Memory(weights, gradients, state, averages, logits=logits, activations=rest - logits)


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    """Makes tensors of this type where none is named."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Work:
    """What the data give the devices to do.

    Args:
        batch: The largest that a device reads.
        tokens: Places for tokens that a step computes, on all devices.
        steps: Optimizer steps in an epoch; None: the data have no end.
    """

    batch: Batch
    tokens: int
    steps: int | None

    @property
    def shapes(self) -> tuple[Any, ...]:
        """What the memory of a step depends on."""
        found = ((name, value.shape) for name, value in vars(self.batch).items() if isinstance(value, Tensor))
        return tuple(sorted(found))


def work_of(data: Any, ranks: int, accumulate: int) -> Work:
    """What each of so many ranks that see different data gets to do.

    Args:
        data: The DataModule, prepared.
        ranks: Their number.
        accumulate: Batches to an optimizer step.
    """
    share = Share(0, ranks, accumulate)
    if isinstance(data, SharedData):
        data.planned = share
    loader = data.train_dataloader()
    batch = next(iter(loader))
    if not isinstance(loader, EndlessLoader):  # somebody else's, which knows of no ranks
        together = ranks * accumulate
        return Work(batch, batch.tokens.numel() * together, max(1, len(loader) // together))
    places = _bucket_places(loader) if isinstance(loader, BucketedLoader) else batch.tokens.shape[-1]
    steps = None if isinstance(loader, StreamLoader) else loader.epoch_windows
    return Work(batch, int(places * loader.window), steps)


def _bucket_places(loader: BucketedLoader) -> float:
    """Places for tokens in a batch, on average over an epoch."""
    lengths = loader.rows.lengths(0)
    lengths = lengths.reshape(len(lengths), -1)
    widths = [len(rows) * int(loader.budget.widths(lengths[rows])[-1]) for rows in loader.plan(0)]
    return sum(widths) / max(1, len(widths))


def _plain_loss(total: Tensor, count: Tensor, window_tokens: Tensor, output: Any) -> Tensor:
    return sum(output.losses.values(), total / window_tokens)


def _logits(task: Task, batch: Batch) -> int:
    """Bytes of the logits that the loss holds at a time."""
    targets = getattr(batch, "targets", None)
    heads = [module for module in task.modules() if isinstance(module, Head)]
    if targets is None or not heads:
        return 0
    chunk = getattr(task.loss, "chunk", targets.numel()) if targets.device.type == "cpu" else targets.numel()
    return int(min(targets.numel(), chunk) * heads[0].weight.shape[0] * 4)


def bytes_of(tensors: Iterable[Any]) -> int:
    """Bytes of the tensors' memory, shared memory once."""
    storages: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
    total = 0
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            storage = tensor.untyped_storage()
            if storages.get(id(storage)) is not storage:
                storages[id(storage)] = storage
                total += storage.nbytes()
    return total


def layouts(devices: Sequence[int]) -> list[tuple[str, Any, int]]:
    """Every way to use these numbers of devices: its name, the strategy and the number."""
    found: list[tuple[str, Any, int]] = []
    for number in devices:
        if number == 1:
            found.append(("single", "auto", number))
            continue
        found += [("ddp", "ddp", number), ("fsdp2", Sharded(1), number), ("tensor_parallel", Sharded(number), number)]
        if number >= 4 and number % 2 == 0:
            found.append(("fsdp2_tp", Sharded(2), number))
    return found
