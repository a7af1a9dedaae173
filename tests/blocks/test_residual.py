import math
from functools import partial

import pytest
import torch
from discovery import close
from torch import nn

from lit_transformer.blocks import (
    Attention,
    DeepNorm,
    LatentAttention,
    Layer,
    LayerNorm,
    LayerScale,
    NoNorm,
    OpenStart,
    Parallel,
    ParallelNorms,
    PostNorm,
    PreNorm,
    ReZero,
    Sandwich,
    SwiGLU,
)
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import DecoderOnly, DepthScaled, Normal, ZeroResidual
from lit_transformer.vocabulary import Vocabulary

DIMS = Dims(d_model=8, n_layers=3, n_heads=2)
X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
LN = nn.LayerNorm(8)


def f(x):
    return x.sin(), "f"


def g(x):
    return x * 2 + 1, "g"


def run(order, **more):
    built = order(DIMS, LayerNorm, 2, 0.0, **more)
    y, extras = built(X, (f, g))
    assert extras == ["f", "g"]
    return built, y


def test_orders_are_their_formulas():
    h = X + f(LN(X))[0]
    close(run(PreNorm)[1], h + g(LN(h))[0], 1e-6)
    h = LN(X + f(X)[0])
    close(run(PostNorm)[1], LN(h + g(h)[0]), 1e-6)
    h = X + LN(f(LN(X))[0])
    close(run(Sandwich)[1], h + LN(g(LN(h))[0]), 1e-6)
    close(run(Parallel)[1], X + f(LN(X))[0] + g(LN(X))[0], 1e-6)
    built, _ = run(ParallelNorms)
    nn.init.constant_(built.norms[1].weight, 3.0)
    close(built(X, (f, g))[0], X + f(LN(X))[0] + g(3 * LN(X))[0], 1e-6)
    h = X + f(X)[0]
    close(run(OpenStart)[1], h + g(LN(h))[0], 1e-6)
    h = X + 0.1 * f(LN(X))[0]
    close(run(LayerScale)[1], h + 0.1 * g(LN(h))[0], 1e-6)
    a = (2 * 3) ** 0.25
    h = LN(a * X + f(X)[0])
    close(run(DeepNorm)[1], LN(a * h + g(h)[0]), 1e-6)


def test_rezero_starts_as_nothing_and_has_no_norm():
    built, y = run(ReZero)
    assert torch.equal(y, X)
    assert all(isinstance(norm, NoNorm) for norm in built.norms)
    for gain in built.gains:
        gain.weight.data.fill_(0.5)
    h = X + 0.5 * f(X)[0]
    close(built(X, (f, g))[0], h + 0.5 * g(h)[0], 1e-6)


@pytest.mark.parametrize("order", [PreNorm, Sandwich, Parallel, LayerScale])
def test_a_stream_that_is_never_normalised_is_so_at_the_end(order):
    assert isinstance(order.final_norm(DIMS, LayerNorm), LayerNorm)


@pytest.mark.parametrize("order", [PostNorm, DeepNorm, ReZero])
def test_other_orders_end_as_they_are(order):
    assert isinstance(order.final_norm(DIMS, LayerNorm), NoNorm)


def test_deep_norm_constants():
    decoder = DeepNorm(DIMS, LayerNorm, 3)
    assert decoder.alpha == pytest.approx((3 * 3) ** 0.25) and decoder.beta == pytest.approx((12 * 3) ** -0.25)
    single = DeepNorm(DIMS, LayerNorm)
    assert single.alpha == pytest.approx(6**0.25) and single.beta == pytest.approx(24**-0.25)
    given = DeepNorm(DIMS, LayerNorm, alpha=2.0, beta=0.5)
    assert (given.alpha, given.beta) == (2.0, 0.5)
    with pytest.raises(SizeError, match="residual.alpha"):
        DeepNorm(DIMS, LayerNorm, alpha=0.0)


@pytest.mark.parametrize("scheme", [Normal(0.02), DepthScaled(0.02)])
def test_deep_norm_scales_the_start_of_all_but_queries_and_keys(scheme):
    dims = Dims(d_model=64, n_layers=3, n_heads=2)
    layer = partial(Layer, residual=DeepNorm)
    deep = DecoderOnly(Vocabulary(5), dims, layer, initialisation=scheme).stack.layers[0]
    plain = DecoderOnly(Vocabulary(5), dims, initialisation=Normal(0.02)).stack.layers[0]
    beta = 24**-0.25
    for name, parameter in deep.named_parameters():
        if parameter.ndim == 2:
            expected = 1.0 if name.split(".")[-2] in ("query", "key") else beta
            ratio = float(parameter.detach().std() / plain.get_parameter(name).detach().std())
            assert math.isclose(ratio, expected, rel_tol=0.05), (name, ratio)


def test_a_zero_residual_starts_as_the_identity():
    tokens = torch.arange(5)[None]
    network = DecoderOnly(Vocabulary(5), Dims(d_model=16, n_layers=2, n_heads=2), initialisation=ZeroResidual())
    embedded, hidden = network.embedding(tokens), network.stack.norm(network.embedding(tokens))
    torch.testing.assert_close(network(tokens=tokens).logits, network.head(hidden))
    network(tokens=tokens).logits.square().sum().backward()
    assert embedded.std() > 0 and all(layer.attention.output.weight.grad.any() for layer in network.stack.layers)


def test_deep_norm_knows_the_score_products_of_other_attentions():
    layer = Layer(DIMS, partial(LatentAttention, query_rank=4), residual=DeepNorm)
    gains = {name: module.gain for name, module in layer.attention.named_modules() if hasattr(module, "gain")}
    assert {name for name, gain in gains.items() if gain is not None} == {"value", "output"}


def test_dropout_acts_on_what_is_added():
    torch.manual_seed(0)
    built = PreNorm(DIMS, NoNorm, 1, dropout=0.5).train()
    added = built(X, (lambda x: (torch.ones_like(x), None),))[0] - X
    assert {round(float(v), 3) for v in added.unique()} <= {0.0, 2.0}
    assert built.eval()(X, (lambda x: (torch.ones_like(x), None),))[0].equal(X + 1)


def test_layer_has_what_it_was_given():
    layer = Layer(DIMS, residual=Parallel)
    assert len(layer.residual.norms) == 1
    assert isinstance(layer.attention, Attention) and isinstance(layer.feed_forward, SwiGLU)
