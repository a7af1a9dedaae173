"""The allocator is set for training on a CPU, and only then."""

from types import SimpleNamespace

import pytest
import torch

from lit_transformer.training import allocator
from lit_transformer.training.allocator import Allocator, keep_freed_memory


def trainer(device: str) -> SimpleNamespace:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


@pytest.mark.parametrize(
    ("policy", "stage", "device", "expected"),
    [("keep", "fit", "cpu", 1), ("system", "fit", "cpu", 0), ("keep", "test", "cpu", 0), ("keep", "fit", "cuda", 0)],
)
def test_when_it_acts(policy: str, stage: str, device: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: calls.append(True))
    Allocator(policy).setup(trainer(device), None, stage)  # type: ignore[arg-type]
    assert len(calls) == expected


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "system", lambda: "Darwin")
    assert not keep_freed_memory()
