"""What to do when memory runs out: where it went, and three lines of the recipe that give it back."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_transformer.training.ema import EMA
from lit_transformer.training.run_state import find_callback


class MemoryReport(Callback):
    """Prints, when a step runs out of memory, the batch's shape, the memory by part and three edits of the recipe."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes the shapes; the batch may be gone when they are asked for."""
        self._shapes = {name: tuple(value.shape) for name, value in _tensors(batch)}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Prints the report; the program then ends with exit code 3."""
        if is_out_of_memory(exception):
            print(report(trainer, pl_module, self._shapes), file=sys.stderr, flush=True)


def is_out_of_memory(exception: BaseException) -> bool:
    """Whether an allocation failed, on the CPU or on an accelerator."""
    if isinstance(exception, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(exception).lower()
    return isinstance(exception, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def report(trainer: Trainer, module: LightningModule, shapes: dict[str, tuple[int, ...]]) -> str:
    """The report as text."""
    batch = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape) or "unknown"
    parts = memory_by_part(trainer, module)
    width = max(map(len, parts))
    lines = [f"out of memory in step {trainer.global_step + 1}; batch: {batch}"]
    lines += [f"  {name:<{width}}  {size / 1e6:>10,.1f} MB" for name, size in parts.items()]
    lines += ["three ways out, each an edit of the recipe:"]
    lines += [f"  {number}. {edit}" for number, edit in enumerate(edits(trainer, module, parts), 1)]
    return "\n".join(lines)


def memory_by_part(trainer: Trainer, module: LightningModule) -> dict[str, int]:
    """Bytes of weights, gradients, optimizer state, average, and of the rest at the peak."""
    parameters = list(module.parameters())
    parts = {
        "weights": _bytes(parameters),
        "gradients": _bytes(p.grad for p in parameters if p.grad is not None),
        "optimizer state": _bytes(
            value for optimizer in trainer.optimizers for state in optimizer.state.values() for value in state.values()
        ),
    }
    average = find_callback(trainer, EMA)
    if average is not None:
        parts["averaged weights"] = _bytes(average.average.values())
    parts["activations and the rest, at the peak"] = max(0, peak_memory(module.device) - sum(parts.values()))
    return parts


def edits(trainer: Trainer, module: LightningModule, parts: dict[str, int]) -> list[str]:
    """The three most useful edits of the recipe, the ones that do not change the result first."""
    return list(_edits(trainer, module, parts))[:3]


def _edits(trainer: Trainer, module: LightningModule, parts: dict[str, int]) -> Iterator[str]:
    data = getattr(trainer, "datamodule", None)
    window = trainer.accumulate_grad_batches
    sizes = ((data, "batch_size"), (getattr(data, "batch_size", None), "batch_size.rows"))
    for owner, key in (*sizes, (getattr(data, "batches", None), "batches.tokens")):
        size = getattr(owner, key.rpartition(".")[2], None)
        if isinstance(size, int) and size > 1:
            fewer = size // 2
            more = -(-size * window // fewer)
            yield (
                f"data.{key}: {size} -> {fewer} and trainer.accumulate_grad_batches: {window} -> {more}: "
                "the same updates from half the activations"
            )
    if "16" not in str(trainer.precision):
        yield (
            f"trainer.precision: {trainer.precision} -> bf16-mixed: activations in half the bytes "
            "(--config overlays/bf16)"
        )
    for key in ("block_size", "max_len"):
        length = getattr(data, key, None)
        if isinstance(length, int) and length > 1:
            yield f"data.{key}: {length} -> {length // 2}: half the tokens a row, a quarter of the attention scores"
    dims = getattr(getattr(module, "network", None), "dims", None)
    if dims is not None:
        yield f"model.network.dims.n_layers: {dims.n_layers} -> {max(1, dims.n_layers // 2)}: half the layers"
        yield f"model.network.dims.d_model: {dims.d_model} -> {max(1, dims.d_model // 2)}: a quarter of the weights"
    yield "trainer.limit_val_batches: 0: no validation, if it was the validation that ran out"
    yield "a device with more memory"
    fixed = (parts["weights"] + parts["optimizer state"]) / 1e6
    yield f"a smaller model: its weights and optimizer take {fixed:,.1f} MB"


def _tensors(batch: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Tensor):
        yield "tensor", batch
    for name, value in batch.items() if isinstance(batch, dict) else getattr(batch, "__dict__", {}).items():
        if isinstance(value, Tensor):
            yield str(name), value


def _bytes(tensors: Iterable[Any]) -> int:
    storages = {}
    for tensor in tensors:
        if isinstance(tensor, Tensor) and not tensor.is_meta:
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            storage = local.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def peak_memory(device: torch.device) -> int:
    """Bytes that this process had at most: of the accelerator's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
