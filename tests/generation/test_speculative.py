"""Speculative decoding gives what the network alone would give."""

import math

import pytest
import torch

from lit_transformer.blocks.linear_attention import LinearAttention
from lit_transformer.blocks.position import ALiBi, Learned, RoPE
from lit_transformer.errors import UserError
from lit_transformer.generation import (
    Draft,
    DraftNetwork,
    FrequencyPenalty,
    Multinomial,
    PromptLookup,
    Sampler,
    generate,
    generate_speculatively,
    sampler_of,
)
from lit_transformer.generation.speculative import Acceptance, Proposal, _Writer, drawn

from .small import build
from .test_samplers import chi_square

PROMPTS = [[1, 2, 3, 1, 2], [7], [3, 1, 4, 1, 5, 9, 2, 6]]


class Stubborn(Draft):
    """Always proposes the same tokens."""

    def propose(self, text, count, sampler, draws):
        return Proposal([2, 2, 2, 2][:count], [None] * min(count, 4))


def flat(network, factor=0.3):
    with torch.no_grad():
        network.embedding.weight.mul_(factor)
    return network


@pytest.mark.parametrize("position", [RoPE, Learned, ALiBi])
def test_greedy_is_greedy(position):
    network, draft = build(position, eos_id=3), build(position, seed=5)
    expected = generate(network, PROMPTS, sampler=Sampler(), max_new_tokens=16)
    for each in (DraftNetwork(draft), DraftNetwork(network), PromptLookup(), Stubborn()):
        found, acceptance = generate_speculatively(network, each, PROMPTS, sampler=Sampler(), max_new_tokens=16)
        assert [completion.tokens for completion in found] == [completion.tokens for completion in expected]
        assert [completion.reason for completion in found] == [completion.reason for completion in expected]
        assert acceptance.accepted <= acceptance.proposed


def test_a_perfect_draft_is_always_accepted(network):
    _, acceptance = generate_speculatively(
        network, DraftNetwork(network), [[1, 2]], sampler=sampler_of(0.9), max_new_tokens=31, proposals=5, seed=1
    )
    assert acceptance.rate > 0.99 and acceptance.passes == 6  # 1, then 6 at a time


def test_lookup_finds_what_followed_the_longest_match():
    lookup = PromptLookup(3)
    propose = lambda text, count: lookup.propose(text, count, Sampler(), torch.Generator()).tokens  # noqa: E731
    assert propose([1, 2, 3, 4, 9, 3, 5, 1, 2, 3], 3) == [4, 9, 3]
    assert propose([1, 2, 7, 2, 8, 2], 2) == [8, 2]
    assert propose([1, 2, 3], 4) == [] and propose([1], 4) == []


def assert_shares(counts, expected):
    """Chi-square at 99.9 %, rare outcomes taken together."""
    draws = int(counts.sum())
    assert not counts[expected == 0].any()
    likely = expected * draws >= 5
    counts = [*counts[likely].tolist(), float(counts[~likely].sum())]
    shares = [*expected[likely].tolist(), float(expected[~likely].sum())]
    if shares[-1] * draws < 1:
        counts, shares = counts[:-1], [share / (1 - shares[-1]) for share in shares[:-1]]
    freedom = len(shares) - 1
    assert chi_square(counts, shares) < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("sampler", [Sampler((), Multinomial()), sampler_of(0.7, top_k=4)])
@pytest.mark.parametrize("certain", [True, False])
def test_a_token_has_the_networks_distribution_whatever_is_proposed(network, sampler, certain):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, generator=generator)
    q = torch.randn(6, generator=generator).softmax(0)
    p = sampler.choice.distribution(sampler.process(logits.clone(), None))
    third = int(logits[0].topk(3).indices[-1])
    counts, acceptance = torch.zeros(6, 7), Acceptance()
    writer = _Writer(network, [1], sampler, generator, acceptance)
    for _ in range(4000):
        writer.text = [1]
        token = third if certain else drawn(q, generator)
        writer.take(logits.clone(), Proposal([token], [None if certain else q]))
        first, second = [*writer.text[1:], 6][:2]
        counts[first, second] += 1
    assert 0 < acceptance.accepted < acceptance.proposed == 4000
    assert_shares(counts.sum(1), p[0])
    after = counts[:, :6].sum(0)  # behind an accepted token, one more of the network's own
    assert int(after.sum()) == acceptance.accepted
    assert_shares(after, p[1])


@pytest.mark.parametrize("sampler", [Sampler((), Multinomial()), sampler_of(processors=[FrequencyPenalty(1.0)])])
def test_texts_have_the_networks_distribution(sampler):
    network, draft, prompt = flat(build(size=5)), DraftNetwork(flat(build(seed=5, size=5))), [1, 2, 3]
    found, acceptance = generate_speculatively(
        network, draft, [prompt] * 250, sampler=sampler, max_new_tokens=3, proposals=2, stop_ids=(), seed=0
    )
    assert 0 < acceptance.accepted < acceptance.proposed
    counts = torch.zeros(5, 5, 5)
    for completion in found:
        counts[tuple(completion.tokens)] += 1
    assert_shares(counts, joint(network, prompt, sampler))


def joint(network, prompt, sampler):
    """(V, V, V) probabilities of three new tokens, computed without a cache."""
    from lit_transformer.generation import History

    def following(text):
        with torch.no_grad():
            logits = network(torch.tensor([text])).logits[:, -1].float()
        past = History(torch.tensor([text]), [0], len(prompt))
        return sampler.choice.distribution(sampler.begin().process(logits, past))[0]

    result = torch.zeros(5, 5, 5)
    for a, first in enumerate(following(prompt)):
        for b, second in enumerate(following([*prompt, a])):
            result[a, b] = first * second * following([*prompt, a, b])
    return result


def test_what_does_not_fit_is_refused(network):
    with pytest.raises(UserError, match="the draft has 12 tokens and the network 13"):
        generate_speculatively(network, DraftNetwork(build(size=12)), [[1]], max_new_tokens=5)
    with pytest.raises(UserError, match="leaves room for 61 new ones in the context of 64"):
        generate_speculatively(network, PromptLookup(), [[1, 2, 3]], max_new_tokens=64)
    with pytest.raises(UserError, match="a cache that can be rewound, and RecurrentState cannot"):
        generate_speculatively(build(attention=LinearAttention), PromptLookup(), [[1]], max_new_tokens=5)
    assert generate_speculatively(network, PromptLookup(), [[1]], max_new_tokens=0)[0][0].tokens == []
