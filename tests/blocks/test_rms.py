"""The normalisation in one step gives PyTorch's values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from lit_transformer.blocks.rms import rms_norm


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.0)])
def test_value_and_gradients(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, dtype=dtype, requires_grad=True), torch.randn(6, dtype=dtype, requires_grad=True)
    ours, theirs = rms_norm(x, weight, 1e-6), F.rms_norm(x, (6,), weight, 1e-6)
    found = [ours, *torch.autograd.grad(ours.sin().sum(), (x, weight))]
    expected = [theirs, *torch.autograd.grad(theirs.sin().sum(), (x, weight))]
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert torch.allclose(a, b, atol=tolerance, rtol=tolerance)


def test_a_token_of_zeros_has_finite_gradients() -> None:
    x, weight = torch.zeros(2, 6, requires_grad=True), torch.ones(6, requires_grad=True)
    rms_norm(x, weight, 1e-6).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(weight.grad).all()
