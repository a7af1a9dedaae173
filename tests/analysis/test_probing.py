"""What is measured of a network beside its loss, on networks and numbers whose answer is known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from lit_transformer.analysis.complexity import crossover, exponent, exponents, time_by_length, time_by_size
from lit_transformer.analysis.probing import decoding_cost, gradient_norms, loss_by_position, shift_difference
from lit_transformer.blocks import FIRE, ALiBi, CausalRelativeBias, NoPosition, RoPE, Sinusoidal, XPos
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

TOKENS = torch.randint(0, 11, (2, 16), generator=torch.Generator().manual_seed(0))


def network(position: type, **sizes: int) -> DecoderOnly:
    dims = Dims(d_model=16, n_layers=3, n_heads=4, max_len=64, **sizes)
    built = DecoderOnly(Vocabulary(11), dims, position=position).eval().double()
    generator = torch.Generator().manual_seed(0)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return built


@pytest.mark.parametrize("position", [RoPE, ALiBi, CausalRelativeBias, NoPosition, XPos])
def test_relative_positions_do_not_see_a_shift(position: type) -> None:
    assert shift_difference(network(position), TOKENS, 40) < 1e-10


def test_fire_does_beyond_its_threshold_where_distances_are_divided_by_the_place() -> None:
    model = network(FIRE)
    factor = model.stack.position.threshold_factor
    found = [shift_difference(model, TOKENS, 40) for value in (1.0, 0.01) if factor.data.fill_(value) is not None]
    assert found[0] < 1e-10 and found[1] > 1e-6


def test_absolute_positions_do() -> None:
    assert shift_difference(network(Sinusoidal), TOKENS, 40) > 1e-3


def test_loss_by_position_is_the_mean_of_its_bin() -> None:
    model = network(RoPE)
    targets = TOKENS.roll(-1, 1).masked_fill(torch.arange(16) == 15, -100)
    batch = SimpleNamespace(
        tokens=TOKENS, targets=targets, positions=torch.arange(16).expand(2, 16), inputs={"tokens": TOKENS}
    )
    found = loss_by_position(model, [batch], per_octave=1)
    with torch.no_grad():
        logits = model(tokens=TOKENS).logits
    losses = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(),
                                      reduction="none").view(2, 16)  # fmt: skip
    assert list(found) == [1, round(math.sqrt(6), 2), round(math.sqrt(28), 2), round(math.sqrt(120), 2)]
    assert found[1] == pytest.approx(float(losses[:, 0].mean()))
    assert found[round(math.sqrt(120), 2)] == pytest.approx(float(losses[:, 7:15].mean()))


def test_gradient_norms_by_layer_add_up() -> None:
    model = network(RoPE)
    loss = model(tokens=TOKENS).logits.square().mean()
    norms = gradient_norms(model, loss)["stack"]
    gradients = torch.autograd.grad(model(tokens=TOKENS).logits.square().mean(), list(model.stack.layers.parameters()))
    assert list(norms) == [0, 1, 2]
    assert sum(n**2 for n in norms.values()) == pytest.approx(float(sum(g.square().sum() for g in gradients)))


def test_a_cache_with_a_quarter_of_the_heads_takes_a_quarter() -> None:
    whole, quarter = (decoding_cost(network(RoPE, n_kv_heads=heads), 32, rows=2, new_tokens=3) for heads in (4, 1))
    assert quarter["cache_bytes"] == whole["cache_bytes"] / 4 and whole["milliseconds_per_token"] > 0


def test_exponents_and_crossover_of_known_curves() -> None:
    lengths = [64, 128, 256, 512]
    square, line = {n: n**2 / 1e4 for n in lengths}, {n: n / 50 for n in lengths}
    assert exponent(square) == pytest.approx(2) and exponent(line) == pytest.approx(1)
    assert crossover(square, line) == pytest.approx(200) and crossover(line, square) is None
    times = time_by_length(network(RoPE).float(), [8, 16], seconds=0.01)
    assert set(times) == {"attention", "scores", "feed_forward"}
    assert all(value > 0 for each in times.values() for value in each.values())


def test_exponents_of_length_and_width() -> None:
    sizes = [(length, width) for length in (64, 128, 256) for width in (32, 64)]
    assert exponents({(n, d): 3.0 * n**2 * d for n, d in sizes}) == pytest.approx((2, 1))
    assert exponents({(n, d): 0.1 * n * d**2 for n, d in sizes}) == pytest.approx((1, 2))

    def make(width: int) -> DecoderOnly:
        return DecoderOnly(Vocabulary(11), Dims(d_model=width, n_layers=1, n_heads=width // 8, max_len=64))

    times = time_by_size(make, [16, 32], [8, 16], seconds=0.01)
    assert all(set(each) == {(8, 16), (16, 16), (8, 32), (16, 32)} for each in times.values())
