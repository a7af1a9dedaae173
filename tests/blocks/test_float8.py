"""Products in float8 against the same rounding written out, and a layer's gradients against float32's."""

import pytest
import torch
from torch import Tensor, nn

from lit_transformer.blocks.float8 import (
    BACKWARD,
    FORWARD,
    Float8Linear,
    Float8ResidualLinear,
    float8_product,
    to_float8,
)
from lit_transformer.blocks.linear import Linear, ResidualLinear


def written_out(a: Tensor, b: Tensor, kinds: tuple[torch.dtype, torch.dtype]) -> Tensor:
    parts = []
    for x, kind in zip((a, b), kinds, strict=True):
        scale = torch.finfo(kind).max / x.abs().max()
        parts.append((x * scale).to(kind).double() / scale.double())
    return parts[0] @ parts[1].T


@pytest.mark.parametrize("kinds", [(FORWARD, FORWARD), (BACKWARD, FORWARD)])
def test_the_product_is_that_of_the_rounded_operands(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(32, 48) * 3, torch.randn(64, 48) * 1e-3
    y = float8_product(a, b, kinds, torch.float32)
    torch.testing.assert_close(y.double(), written_out(a, b, kinds), rtol=1e-4, atol=1e-6)
    assert (y - a @ b.T).norm() / (a @ b.T).norm() < 0.08


def test_a_layer_trains_and_keeps_names_and_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Linear(32, 64), nn.GELU(), ResidualLinear(64, 16), Linear(16, 3))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(2, 8, 32, requires_grad=True)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(net(x).square().sum(), [x, *net.parameters()]))

    exact = gradients()
    assert to_float8(net) == 2 and to_float8(net) == 0
    assert [type(net[i]) for i in (0, 2, 3)] == [Float8Linear, Float8ResidualLinear, Linear]
    assert isinstance(net[2], ResidualLinear) and net.state_dict().keys() == before.keys()
    for a, b in zip(gradients(), exact, strict=True):
        assert a.shape == b.shape and (a - b).norm() / b.norm() < 0.15
    net.eval()
    net.load_state_dict(before)
    with torch.no_grad():
        torch.testing.assert_close(net[0](x), nn.functional.linear(x, before["0.weight"], before["0.bias"]))
