"""What is said when memory runs out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lit_transformer.training.ema import EMA
from lit_transformer.training.memory_report import MemoryReport, is_out_of_memory
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
