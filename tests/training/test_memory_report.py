"""What is said when memory runs out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.training.ema import EMA
from lit_transformer.training.memory_report import MemoryReport, edits, is_out_of_memory
from tests.training.tiny_run import train


class Hungry(Callback):
    """Asks for more memory than there is, in the third step."""

    def on_before_backward(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 2:
            torch.empty(1 << 50)


def test_shapes_parts_and_three_edits_are_said(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(RuntimeError) as caught:
        train(tmp_path, callbacks=(Hungry(), EMA(), MemoryReport()))
    assert is_out_of_memory(caught.value)
    said = capsys.readouterr().err
    assert "out of memory in step 3; batch: x (4, 8), ids (4,)" in said
    for part in ("weights", "gradients", "optimizer state", "averaged weights", "activations and the rest"):
        assert part in said
    assert sum(line.startswith(f"  {n}. ") for n in (1, 2, 3) for line in said.splitlines()) == 3
    assert "  4. " not in said and "bf16" in said


@pytest.mark.parametrize(
    ("data", "first", "last"),
    [
        ({"batch_size": 12, "block_size": 64}, "data.batch_size: 12 -> 6 and trainer.accumulate_grad_batches: 2 -> 4",
         "data.block_size: 64 -> 32"),
        ({"batches": TokenBudget(4096), "max_len": 256}, "data.batches.tokens: 4096 -> 2048 and trainer.accumulate",
         "data.max_len: 256 -> 128"),
    ],
)  # fmt: skip
def test_the_edits_are_keys_of_the_recipe_with_its_values(data: dict[str, Any], first: str, last: str) -> None:
    trainer = SimpleNamespace(datamodule=SimpleNamespace(**data), accumulate_grad_batches=2, precision="32-true")
    said = edits(trainer, SimpleNamespace(), {"weights": 1, "optimizer state": 2})  # type: ignore[arg-type]
    assert len(said) == 3 and said[0].startswith(first) and "bf16-mixed" in said[1] and said[2].startswith(last)


def test_other_errors_are_left_alone(tmp_path: Path, capsys: Any) -> None:
    class Break(Callback):
        def on_before_backward(self, *_: Any) -> None:
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train(tmp_path, callbacks=(Break(), MemoryReport()))
    assert "out of memory" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_kinds_of_failed_allocation(error: Exception) -> None:
    assert is_out_of_memory(error) and not is_out_of_memory(ValueError("out of memory"))
