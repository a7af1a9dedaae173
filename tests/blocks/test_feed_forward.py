from functools import partial

import pytest
import torch
import torch.nn.functional as F
from discovery import close, randomised, subclasses

from lit_transformer.blocks import (
    GEGLU,
    GELU,
    GLU,
    MLP,
    Activation,
    Bilinear,
    Gated,
    Identity,
    ReGLU,
    ReLU,
    Sigmoid,
    SiLU,
    SquaredReLU,
    SwiGLU,
    Tanh,
)
from lit_transformer.dims import Dims

DIMS = Dims(d_model=16, n_layers=1, n_heads=2, d_ff=24)
X = torch.randn(2, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

FUNCTIONS = {
    GELU: F.gelu,
    ReLU: F.relu,
    SquaredReLU: lambda x: F.relu(x) ** 2,
    SiLU: F.silu,
    Sigmoid: torch.sigmoid,
    Tanh: torch.tanh,
    Identity: lambda x: x,
}


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_mlp_with_any_activation(activation, bias):
    block = randomised(MLP(DIMS, activation, bias).double())
    y, auxiliary = block(X, None)
    close(y, block.down(FUNCTIONS[activation](block.up(X))), 1e-12)
    assert not auxiliary.losses and not auxiliary.stats


def test_every_activation_is_tried():
    known = {cls.__name__ for cls in FUNCTIONS} | {"PositiveELU"}
    assert {cls.__name__ for cls in subclasses(Activation)} == known


@pytest.mark.parametrize(
    ("gated", "activation"), [(GLU, Sigmoid), (SwiGLU, SiLU), (GEGLU, GELU), (ReGLU, ReLU), (Bilinear, Identity)]
)
def test_the_gated_family(gated, activation):
    block = randomised(gated(DIMS, bias=True).double())
    gate = FUNCTIONS[activation](F.linear(X, block.gate.weight, block.gate.bias))
    up = F.linear(X, block.up.weight, block.up.bias)
    close(block(X, None)[0], F.linear(gate * up, block.down.weight, block.down.bias), 1e-12)


def test_a_gated_one_has_as_many_parameters_as_an_mlp():
    dims = Dims(d_model=384, n_layers=1, n_heads=2)
    count = {cls: sum(p.numel() for p in cls(dims).parameters()) for cls in (MLP, SwiGLU)}
    assert count[SwiGLU] == pytest.approx(count[MLP], rel=0.01)
    assert Gated(Dims(16, 1, 2)).up.out_features == 48  # 8/3 x 16 = 42.7, up to a multiple of 8


def test_swiglu_is_llamas():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    theirs = LlamaMLP(LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2)).double()
    ours = SwiGLU(DIMS).double()
    names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    ours.load_state_dict({f"{a}.weight": theirs.state_dict()[f"{b}.weight"] for a, b in names.items()})
    close(ours(X, None)[0], theirs(X), 1e-12)


def test_gelu_has_gpt2s_approximation():
    close(partial(GELU, approximate="tanh")()(X), F.gelu(X, approximate="tanh"), 1e-12)
