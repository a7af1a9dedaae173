"""Typical, epsilon, eta and mirostat against their definitions."""

import math

import pytest
import torch

from lit_transformer.errors import UserError
from lit_transformer.generation import Epsilon, Eta, Mirostat, Multinomial, Sampler, TypicalP, generate, sampler_of

from .test_samplers import LOGITS, assert_distribution, history, only, probabilities


def entropy(values):
    return -sum(value * math.log(value) for value in values)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_typical(p):
    values = probabilities()
    kept, mass = [], 0.0
    for i in sorted(range(8), key=lambda i: abs(-math.log(values[i]) - entropy(values))):
        kept.append(i)
        mass += values[i]
        if mass >= p:
            break
    assert_distribution(sampler_of(truncations=[TypicalP(p)]), only(kept, values))


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.9])
def test_epsilon(epsilon):
    values = probabilities()
    kept = [i for i in range(8) if values[i] >= epsilon] or [0]
    assert_distribution(sampler_of(truncations=[Epsilon(epsilon)]), only(kept, values))


@pytest.mark.parametrize("epsilon", [0.001, 0.02, 0.5])
def test_eta(epsilon):
    values = probabilities()
    bound = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy(values)))
    kept = [i for i in range(8) if values[i] >= bound] or [0]
    assert_distribution(sampler_of(truncations=[Eta(epsilon)]), only(kept, values))


def test_mirostat_first_cuts_at_twice_the_target_and_then_follows_the_error():
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0]])
    bits = (-logits.log_softmax(-1) / math.log(2))[0]
    processor = Mirostat(target=1.0, rate=0.5).begin()
    past = history(1)
    assert processor(logits.clone(), past).isfinite()[0].tolist() == (bits <= 2.0).tolist()
    past.tokens[0, -1] = 1
    bound = 2.0 - 0.5 * (float(bits[1]) - 1.0)
    assert processor(logits.clone(), past).isfinite()[0].tolist() == (bits <= bound).tolist()


def test_mirostat_reaches_its_surprise():
    logits = torch.tensor([LOGITS]) * 0.7
    bits = (-logits.log_softmax(-1) / math.log(2))[0]
    sampler = Sampler([Mirostat(1.5)], Multinomial()).begin()
    draws = torch.rand(3000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    past, surprises = history(1), []
    for draw in draws:
        past.tokens[0, -1] = sampler(logits.clone(), past, draw)
        surprises.append(float(bits[past.tokens[0, -1]]))
    assert sum(surprises[500:]) / 2500 == pytest.approx(1.5, abs=0.05)
    assert sum(float(bits[i]) * 2 ** -float(bits[i]) for i in range(8)) > 2  # what it would be otherwise


def test_a_sampler_can_be_used_again(network):
    sampler = Sampler([Mirostat(2.0)], Multinomial())
    first, second = (generate(network, [[1], [2, 3]], sampler=sampler, max_new_tokens=9, seed=3) for _ in range(2))
    assert [each.tokens for each in first] == [each.tokens for each in second]


@pytest.mark.parametrize("make", [lambda: TypicalP(0), lambda: Epsilon(1.0), lambda: Eta(-1), lambda: Mirostat(0)])
def test_values_out_of_range_are_refused(make):
    with pytest.raises(UserError, match="must be"):
        make()
