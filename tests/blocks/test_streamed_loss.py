"""Losses that never hold all logits give the plain one's value and gradients, also through heads of other kinds."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_transformer.blocks.embedding import Head
from lit_transformer.blocks.loss import IGNORED, CrossEntropy, TokenLoss
from lit_transformer.blocks.streamed_loss import LigerCrossEntropy, RecomputedCrossEntropy
from lit_transformer.errors import UserError


class Capped(Head):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(50, 6, dtype=torch.float64))

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(super().forward(hidden))


def grown(loss: TokenLoss, head: Head, hidden: Tensor, targets: Tensor) -> list[Tensor]:
    value = loss(hidden, head, targets)
    return [value, *torch.autograd.grad(value * 0.3, (hidden, head.weight))]


@pytest.mark.parametrize("chunk", [1, 5, 16, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_value_and_gradients(chunk: int, smoothing: float) -> None:
    torch.manual_seed(0)
    head, targets = Capped(), torch.randint(50, (2, 8))
    targets[1, 4:] = IGNORED
    hidden = torch.randn(2, 8, 6, dtype=torch.float64, requires_grad=True)
    ours = grown(RecomputedCrossEntropy(smoothing, chunk), head, hidden, targets)
    for a, b in zip(ours, grown(CrossEntropy(smoothing), head, hidden, targets), strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(RecomputedCrossEntropy(smoothing, chunk)(hidden, head, targets), ours[0])


def test_logits_are_never_whole() -> None:
    head, largest = Capped(), [0]
    head.register_forward_hook(lambda _, __, logits: largest.append(logits.numel()))
    hidden = torch.randn(4, 64, 6, dtype=torch.float64, requires_grad=True)
    RecomputedCrossEntropy(chunk=32)(hidden, head, torch.zeros(4, 64, dtype=torch.long)).backward()
    assert max(largest) == 32 * 50 and len(largest) == 1 + 2 * 8  # each chunk twice


def test_liger_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(UserError, match=r"pip install 'lit-transformer\[liger\]'"):
        LigerCrossEntropy()
    found: Any = object()
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU"):
        LigerCrossEntropy()
