"""Products that are rounded by hand, shared or recomputed give what ``F.linear`` gives."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks import products
from lit_transformer.blocks.feed_forward import GELU, SiLU, gated
from lit_transformer.blocks.linear import Linear, project, project_of


def operands(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((2, 5, 6), (4, 6), (4,)))  # type: ignore[return-value]


def filled(n_in: int, n_out: int) -> Linear:
    linear = Linear(n_in, n_out)
    nn.init.normal_(linear.weight)
    nn.init.normal_(linear.bias)
    return linear


@pytest.fixture(params=[True, False], ids=["native", "no low-precision units"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(
        products, "multiplies", lambda dtype: request.param or dtype not in (torch.bfloat16, torch.float16)
    )
    return bool(request.param)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_a_product_is_at_least_as_near_to_the_truth(dtype: torch.dtype, native: bool) -> None:
    x, w, b = operands(torch.float32)
    truth = F.linear(x.double(), w.double(), b.double())
    with torch.autocast("cpu", dtype):
        ours, peer = products.product(x, w, b), F.linear(x, w, b)
    assert ours.dtype == peer.dtype == dtype
    assert (ours - truth).abs().max() <= (peer - truth).abs().max() * 1.1
    truths = torch.autograd.grad(truth.sin().sum(), (x, w, b))
    for each, expected in zip(torch.autograd.grad(ours.sin().sum(), (x, w, b)), truths, strict=True):
        assert each.dtype == torch.float32
        assert torch.allclose(each, expected, atol=0.15, rtol=0.05)


def test_low_precision_weights_get_gradients_of_their_type(native: bool) -> None:
    x, w, b = (each.detach().bfloat16().requires_grad_() for each in operands())
    y = products.product(x, w, b)
    gradients = torch.autograd.grad(y.sum(), (x, w, b))
    assert [each.dtype for each in (y, *gradients)] == [torch.bfloat16] * 4


def test_frozen_operands_get_no_gradient(native: bool) -> None:
    x, w, b = operands(torch.float32)
    w.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        products.product(x, w, b).sum().backward()
        products.product_of(F.gelu, (x,), w, b).sum().backward()
    assert w.grad is None and x.grad is not None and b.grad is not None


def test_several_products_of_one_input(native: bool) -> None:
    linears = [filled(6, n) for n in (4, 3, 5)]
    x = operands(torch.float32)[0]
    with torch.autocast("cpu", torch.bfloat16):
        together, apart = project(x, *linears), [linear(x) for linear in linears]
    for a, b in zip(together, apart, strict=True):
        assert torch.equal(a, b)
    first = torch.autograd.grad(sum(each.sum() for each in together), (x, linears[2].weight))
    second = torch.autograd.grad(sum(each.sum() for each in apart), (x, linears[2].weight))
    for a, b in zip(first, second, strict=True):
        assert torch.allclose(a, b, atol=1e-2, rtol=1e-2)


def test_recomputed_input_of_a_product_is_exact_and_not_kept() -> None:
    gate, up = (torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    linear = filled(6, 4).double()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ours = project_of(partial(gated, SiLU()), (gate, up), linear)
    assert {t.data_ptr() for t in kept if t.shape == gate.shape} == {gate.data_ptr(), up.data_ptr()}
    plain = linear(F.silu(gate) * up)
    leaves = (gate, up, linear.weight, linear.bias)
    assert torch.allclose(ours, plain, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(y.sin().sum(), leaves) for y in (ours, plain)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_functions_with_parameters_and_hooked_modules_are_called_as_they_are() -> None:
    x, linear, activation = operands(torch.float32)[0], filled(6, 4), nn.PReLU()
    project_of(activation, (x,), linear).sum().backward()
    assert activation.weight.grad is not None
    called: list[str] = []
    linear.register_forward_hook(lambda *_: called.append("linear"))
    hooked = GELU()
    hooked.register_forward_hook(lambda *_: called.append("activation"))
    project_of(hooked, (x,), linear).sum().backward()
    project(x, linear)
    assert called == ["activation", "linear", "linear"]


def test_unknown_types_are_left_to_pytorch() -> None:
    assert products.multiplies(torch.float32) and products.multiplies(torch.float64)
    assert isinstance(products.multiplies(torch.bfloat16), bool)
