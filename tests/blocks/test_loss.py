"""The chunked loss gives the plain one's value and gradients."""

import pytest
import torch
from torch import Tensor, nn

from lit_transformer.blocks import loss as losses
from lit_transformer.blocks.embedding import Head
from lit_transformer.blocks.loss import IGNORED, ChunkedCrossEntropy, CrossEntropy, TokenLoss
from lit_transformer.dims import SizeError

VOCABULARY = 50


@pytest.fixture(autouse=True)
def small_sizes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "WORTHWHILE", 2)
    monkeypatch.setattr(losses, "CACHED_LOGITS", 3 * VOCABULARY)


def head(dtype: torch.dtype = torch.float64) -> Head:
    torch.manual_seed(0)
    made = Head()
    made.weight = nn.Parameter(torch.randn(VOCABULARY, 6, dtype=dtype))
    return made


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    targets = torch.randint(VOCABULARY, (2, 8))
    targets[0, 2], targets[1, 4:] = IGNORED, IGNORED
    return torch.randn(2, 8, 6, dtype=dtype, requires_grad=True), targets


def run(loss: TokenLoss, made: Head, hidden: Tensor, targets: Tensor, scale: float = 0.3) -> list[Tensor]:
    value = loss(hidden, made, targets)
    return [value, *torch.autograd.grad(value * scale, (hidden, made.weight))]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 5, 16, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradients(chunk: int, smoothing: float, dtype: torch.dtype) -> None:
    hidden, targets = case(dtype)
    ours = run(ChunkedCrossEntropy(smoothing, chunk), head(dtype), hidden, targets)
    plain = run(CrossEntropy(smoothing), head(dtype), hidden, targets)
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == b.dtype
        assert (
            torch.allclose(a, b, atol=1e-6, rtol=1e-5) if dtype == torch.float32 else torch.allclose(a, b, rtol=1e-12)
        )


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("chunk", [5, 1000])
def test_under_autocast(chunk: int, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "multiplies", lambda dtype: native)
    hidden, targets = case(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = ChunkedCrossEntropy(chunk=chunk)(hidden, made := head(torch.float32), targets)
    gradients = torch.autograd.grad(value, (hidden, made.weight))
    plain = run(CrossEntropy(), head(torch.float32), hidden, targets, 1.0)
    for a, b in zip([value, *gradients], plain, strict=True):
        assert a.dtype == torch.float32
        assert torch.allclose(a, b, rtol=0.03, atol=0.03)


def test_nothing_to_predict_is_zero_with_zero_gradients() -> None:
    hidden, targets = case()
    for each in run(ChunkedCrossEntropy(), head(), hidden, torch.full_like(targets, IGNORED)):
        assert not each.any()


def test_evaluation_keeps_nothing() -> None:
    hidden, targets = case()
    with torch.no_grad():
        value = ChunkedCrossEntropy(chunk=4)(hidden, head(), targets)
    assert torch.allclose(value, CrossEntropy()(hidden, head(), targets)) and not value.requires_grad


def test_a_head_that_is_more_than_a_product_is_called() -> None:
    class Capped(Head):
        def forward(self, hidden: Tensor) -> Tensor:
            return super().forward(hidden).tanh()

    hidden, targets = case()
    capped = Capped()
    capped.weight = head().weight
    assert torch.equal(ChunkedCrossEntropy()(hidden, capped, targets), CrossEntropy()(hidden, capped, targets))


def test_the_second_backward_of_chunks_is_refused() -> None:
    hidden, targets = case()
    value = ChunkedCrossEntropy(chunk=4)(hidden, head(), targets)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="CrossEntropy to retain"):
        value.backward()


def test_a_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(SizeError, match="loss.chunk"):
        ChunkedCrossEntropy(chunk=0)
