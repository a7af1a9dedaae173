"""Each sampler's distribution against its definition, written here without sorting tricks."""

import math

import pytest
import torch

from lit_transformer.errors import UserError
from lit_transformer.generation import (
    Greedy,
    History,
    MinP,
    Multinomial,
    Sampler,
    Temperature,
    TopK,
    TopP,
    sampler_of,
)

LOGITS = [2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0]
DRAWS = 20_000


def history(rows):
    return History(torch.zeros(rows, 1, dtype=torch.long), [0] * rows, 1)


def probabilities(logits=LOGITS, temperature=1.0):
    weights = [math.exp(logit / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def only(kept, values):
    total = sum(values[i] for i in kept)
    return [values[i] / total if i in kept else 0.0 for i in range(len(values))]


def nucleus(p, values):
    kept, mass = [], 0.0
    for i in sorted(range(len(values)), key=lambda i: -values[i]):
        kept.append(i)
        mass += values[i]
        if mass >= p:
            break
    return kept


def chi_square(counts, expected):
    """The statistic over the tokens that are possible; none of the others may occur."""
    assert all(count == 0 for count, share in zip(counts, expected, strict=True) if share == 0)
    total = sum(counts)
    return sum((c - total * e) ** 2 / (total * e) for c, e in zip(counts, expected, strict=True) if e > 0)


def assert_distribution(sampler, expected, logits=LOGITS):
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
    rows = torch.tensor(logits)[order].expand(DRAWS, -1).clone()
    draws = torch.rand(DRAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens = order[sampler(rows, history(DRAWS), draws)]
    counts = torch.bincount(tokens, minlength=len(logits)).tolist()
    freedom = sum(e > 0 for e in expected) - 1
    # Wilson & Hilferty's approximation of the 99.9 % quantile.
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3 if freedom else 1e-9
    assert chi_square(counts, expected) < bound


def test_multinomial():
    assert_distribution(Sampler((), Multinomial()), probabilities())


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature(temperature):
    assert_distribution(sampler_of(temperature), probabilities(temperature=temperature))


@pytest.mark.parametrize("k", [1, 3, 8, 100])
def test_top_k(k):
    assert_distribution(sampler_of(top_k=k), only(range(min(k, 8)), probabilities()))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("candidates", [2, 256])
def test_top_p(p, candidates, monkeypatch):
    monkeypatch.setattr(TopP, "candidates", candidates)
    values = probabilities()
    assert_distribution(sampler_of(top_p=p), only(nucleus(p, values), values) if p < 1 else values)


@pytest.mark.parametrize("p", [0.01, 0.2, 1.0])
def test_min_p(p):
    values = probabilities()
    assert_distribution(sampler_of(min_p=p), only([i for i in range(8) if values[i] >= p * max(values)], values))


def test_the_chain_works_in_order():
    values = only(range(5), probabilities(temperature=0.7))
    values = only(nucleus(0.9, values), values)
    values = only([i for i in range(8) if values[i] >= 0.1 * max(values)], values)
    assert_distribution(sampler_of(0.7, top_k=5, top_p=0.9, min_p=0.1), values)


def test_rows_are_independent():
    rows = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) * 4
    draws = torch.rand(50, dtype=torch.float64)
    sampler = sampler_of(0.9, top_k=40, top_p=0.8, min_p=0.05)
    together = sampler(rows.clone(), history(50), draws)
    for i in range(50):
        assert sampler(rows[i : i + 1].clone(), history(1), draws[i : i + 1]) == together[i]


def test_ties_are_broken_by_the_lowest_id():
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
    assert Greedy()(logits, torch.zeros(2)).tolist() == [1, 0]


@pytest.mark.parametrize("processor", [TopK(2), TopP(0.5)])
def test_tokens_as_probable_as_the_last_one_stay(processor):
    kept = processor(torch.tensor([[0.0, 3.0, 2.0, 3.0, 3.0]]), history(1))
    assert kept.isfinite().tolist() == [[False, True, False, True, True]]


def test_extreme_draws_give_possible_tokens():
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 1.0, -torch.inf]])
    for draw in (0.0, 0.5, 1 - 2**-40):
        token = Multinomial()(logits, torch.tensor([draw], dtype=torch.float64))
        assert int(token) in (1, 3)


def test_temperature_zero_is_greedy():
    assert isinstance(sampler_of(0.0, top_k=5).choice, Greedy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Temperature(-1.0), "temperature: is -1.0"),
        (lambda: sampler_of(float("nan")), "temperature: is nan"),
        (lambda: TopK(0), "top_k: is 0"),
        (lambda: TopP(0.0), "top_p: is 0.0"),
        (lambda: TopP(1.1), "top_p: is 1.1"),
        (lambda: MinP(-0.1), "min_p: is -0.1"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
