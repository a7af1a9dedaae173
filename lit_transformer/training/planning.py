"""What a training run will need, before it starts: parameters, memory, work."""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from lit_transformer.blocks import Stack
from lit_transformer.blocks.embedding import Head
from lit_transformer.data.batch import Batch
from lit_transformer.data.bucketing import BucketedLoader
from lit_transformer.data.streaming import StreamLoader
from lit_transformer.dims import SizeError
from lit_transformer.tasks.base import Task
from lit_transformer.training.callbacks.freeze import Freeze
from lit_transformer.training.callbacks.lora import LoRA
from lit_transformer.training.ema import EMA
from lit_transformer.training.muon import Muon
from lit_transformer.training.recompute import Recompute
from lit_transformer.training.sharding import check
from lit_transformer.training.unfilled import Unfilled


@dataclass(frozen=True)
class Memory:
    """Bytes on each device, where the most of them are in use.

    Args:
        weights: Parameters and buffers.
        gradients: Of the parameters that are trained.
        optimizer: Its state.
        average: Averaged weights.
        copies: What the strategy holds beside: buckets that gradients travel in, weights gathered for use.
        logits: Scores of the vocabulary that are held at once.
        activations: What the forward pass leaves for backward, and what is in work at the peak.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    copies: int = 0
    logits: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class Layout:
    """How a run is spread over devices.

    Args:
        name: What the strategy is called.
        data: Devices that see different rows.
        tensor: Devices that share each row.
        stage: What those that see different rows share out, as ZeRO counts: 1: optimizer state; 2: gradients too;
            3: weights too, as FSDP2.
        masters: Whether the optimizer keeps float32 weights of its own, as DeepSpeed's does.
    """

    name: str
    data: int = 1
    tensor: int = 1
    stage: int = 0
    masters: bool = False

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.data * self.tensor


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

    Two steps are run, as gradients and optimizer state are there from the second on. The task is built inside: give it
    as it is before ``configure_model``, so that no weights are drawn.

    Args:
        task: The task, not built yet.
        batch: The largest batch that it will see.
        micro_batches: How many of them a step accumulates.
        precision: Of the Trainer.
        callbacks: Those of the recipe: recomputing, averaging.
    """
    autocast = AUTOCAST.get(precision)
    with Unfilled() as mode, default_type(WEIGHTS.get(precision, torch.float32)):
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


def places(loader: Any, batch: Batch) -> float:
    """Places for tokens in a batch, on average over an epoch."""
    if not isinstance(loader, BucketedLoader):
        return batch.tokens.numel()
    lengths = loader.rows.lengths(0)
    lengths = lengths.reshape(len(lengths), -1)
    widths = [len(rows) * int(loader.budget.widths(lengths[rows])[-1]) for rows in loader.plan(0)]
    return sum(widths) / max(1, len(widths))


def epoch_steps(loader: Any, batches: int) -> int | None:
    """Optimizer steps in an epoch, of so many batches each; none where the data have no end."""
    return None if isinstance(loader, StreamLoader) else max(1, len(loader) // batches)


def refusal(task: Task, layout: "Layout") -> str:
    """Why a layout is impossible; empty where it is possible."""
    try:
        if layout.tensor > 1:
            check(task.network, layout.tensor)
        whole = layout.tensor > 1 or (layout.stage and layout.data > 1)
        if whole and isinstance(task.configure_optimizers()["optimizer"], Muon):
            return "Muon needs whole matrices; use AdamW"
    except SizeError as error:
        return str(error)
    return ""


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


BUCKET = 4 * 50_000_000
"""Bytes of the gradients that ZeRO sends at once."""


def spread_memory(alone: Memory, task: nn.Module, layout: Layout) -> Memory:
    """What each device of a layout takes, from what one device alone takes with the rows that one group sees.

    DDP keeps gradients a second time, in the buckets that they travel in. ZeRO-1 and -2 keep a share of the optimizer's
    state and of a float32 copy of the weights, FSDP2 and ZeRO-3 a share of weights, gradients and optimizer state;
    these gather what is outside of the layers for the whole step, and two layers at a time, with the gradients of one.
    Tensor parallelism shares out products, embedding and head, and the activations.
    """
    memory = alone
    if layout.tensor > 1:
        whole = sum(p.numel() for p in task.parameters())
        kept = sum(p.numel() for p in task.parameters() if p.ndim < 2)
        share = (kept + (whole - kept) / layout.tensor) / whole
        memory = replace(
            memory,
            weights=int(memory.weights * share),
            gradients=int(memory.gradients * share),
            optimizer=int(memory.optimizer * share),
            average=int(memory.average * share),
            logits=memory.logits // layout.tensor,
            activations=memory.activations // layout.tensor,
        )
    masters = sum(p.numel() for p in task.parameters()) * 4 // layout.devices if layout.masters else 0
    if layout.data > 1 and layout.stage == 3:
        size = alone.weights / max(1, sum(p.numel() for p in task.parameters())) / layout.tensor
        layers = [layer for module in task.modules() if isinstance(module, Stack) for layer in module.layers]
        inside = {id(p) for layer in layers for p in layer.parameters()}
        root = sum(p.numel() for p in task.parameters() if id(p) not in inside)
        largest = max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0)
        memory = replace(
            memory,
            weights=memory.weights // layout.data,
            gradients=memory.gradients // layout.data,
            optimizer=memory.optimizer // layout.data,
            average=memory.average // layout.data,
            copies=int(size * (2 * root + 3 * largest)) + masters,
        )
    elif layout.data > 1 and layout.stage:
        memory = replace(
            memory,
            gradients=memory.gradients if layout.stage == 1 else memory.gradients // layout.data,
            optimizer=memory.optimizer // layout.data,
            copies=masters + min(memory.gradients, BUCKET),
        )
    elif layout.data > 1:
        memory = replace(memory, copies=memory.gradients)
    return memory


def checkpoint_bytes(alone: Memory) -> int:
    """Size of a checkpoint file: whole weights, the optimizer's state, averages; the rest is small."""
    return alone.weights + alone.optimizer + alone.average


def layouts(devices: Sequence[int]) -> list[Layout]:
    """Every layout of these numbers of devices."""
    found = []
    for number in devices:
        if number == 1:
            found.append(Layout("single"))
            continue
        found += [
            Layout("ddp", data=number),
            Layout("fsdp2", data=number, stage=3),
            Layout("tensor_parallel", tensor=number),
        ]
        if number >= 4 and number % 2 == 0:
            found.append(Layout("fsdp2_tp", data=number // 2, tensor=2, stage=3))
    return found
