"""Searches beside plain beams: groups, phrases, coverage, contrast, risk; and guidance."""

import itertools

import pytest
import torch

from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import (
    Certain,
    Containing,
    Coverage,
    Diverse,
    Guidance,
    Multinomial,
    Sampler,
    beam_search,
    contrastive_search,
    generate,
    minimum_bayes_risk,
)
from lit_transformer.generation import branches as branching
from lit_transformer.generation.scoring import log_probabilities
from lit_transformer.networks import EncoderDecoder, PrefixLM
from lit_transformer.vocabulary import Vocabulary

from .small import build

PROMPTS = [[1, 2, 3, 0, 2], [3], [3, 1, 0, 1, 2, 1, 2]]


def softer(network, factor=0.3):
    with torch.no_grad():
        network.embedding.weight.mul_(factor)
    return network


@pytest.fixture(scope="module")
def translator():
    torch.manual_seed(0)
    network = EncoderDecoder(Vocabulary(13, bos_id=1, max_len=64), Dims(d_model=32, n_layers=2, n_heads=4)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return softer(network, 0.5)


def test_beams_in_one_row_are_beams_in_rows_of_their_own(translator, monkeypatch):
    torch.manual_seed(0)
    prefix = softer(PrefixLM(Vocabulary(13, max_len=64), Dims(d_model=32, n_layers=2, n_heads=4)).eval(), 20)
    options = dict(beams=4, max_new_tokens=12, samples=4, stop_ids=[5, 6])
    for network in (softer(build(), 0.5), prefix, translator):
        shared = beam_search(network, PROMPTS, **options)
        with monkeypatch.context() as patch:
            patch.setattr(branching, "_can_share", lambda network: False)
            plain = beam_search(network, PROMPTS, **options)
        assert [each.tokens for each in shared] == [each.tokens for each in plain]
        assert [each.score for each in shared] == pytest.approx([each.score for each in plain], abs=1e-4)
        assert len({tuple(each.tokens) for each in shared}) > 6


def test_diverse_beams():
    network = softer(build(seed=3), 0.5)
    options = dict(max_new_tokens=6, samples=4, stop_ids=())
    plain = beam_search(network, PROMPTS, beams=4, **options)
    one = beam_search(network, PROMPTS, beams=4, selection=Diverse(1), **options)
    assert [each.tokens for each in one] == [each.tokens for each in plain]
    # Without a penalty every group finds what a search with as many beams finds.
    alike = beam_search(network, PROMPTS, beams=4, selection=Diverse(2, 0.0), **options)
    small = beam_search(network, PROMPTS, beams=2, max_new_tokens=6, samples=2, stop_ids=())
    assert [each.tokens for each in alike[::2]] == [each.tokens for each in small]
    # A penalty beyond all scores: in no step do two groups take the same token.
    apart = beam_search(network, PROMPTS, beams=4, selection=Diverse(4, 1e3), **options)
    for i in range(3):
        texts = [each.tokens for each in apart[4 * i : 4 * i + 4]]
        assert all(len(set(step)) == 4 for step in zip(*texts, strict=True))
    with pytest.raises(UserError, match="4 beams cannot be divided into 3 groups"):
        beam_search(network, PROMPTS, beams=4, selection=Diverse(3), **options)


@pytest.mark.parametrize("phrases", [[[2]], [[1, 3]], [[3, 3, 1], [2]]])
def test_phrases_occur_and_with_enough_beams_the_best_text_with_them_is_found(phrases):
    network = softer(build(size=4))

    def contains(text):
        return all(
            any(text[i : i + len(phrase)] == phrase for i in range(len(text) - len(phrase) + 1)) for phrase in phrases
        )

    options = dict(max_new_tokens=5, stop_ids=[0], length_penalty=0.0, patience=Certain())
    found = beam_search(network, PROMPTS, beams=243, selection=Containing(phrases), **options)
    few = beam_search(network, PROMPTS, beams=4, samples=2, selection=Containing(phrases), **options)
    assert all(contains(each.tokens) for each in few if each.score > -torch.inf)
    for i, prompt in enumerate(PROMPTS):
        texts = [[*text, 0] for n in range(5) for text in map(list, itertools.product((1, 2, 3), repeat=n))]
        texts += [list(text) for text in itertools.product((1, 2, 3), repeat=5)]
        texts = [text for text in texts if contains(text)]
        score, best = max(
            (sum(log_probabilities(network, prompt + text)[len(prompt) - 1 :]), text)
            for text in texts[:: max(1, len(texts) // 400)] + [found[i].tokens + [0] * (found[i].reason == "stop id")]
        )
        assert found[i].score == pytest.approx(score, abs=1e-4) and contains(found[i].tokens)
        assert few[2 * i].score <= found[i].score + 1e-4
        assert found[i].tokens == [token for token in best if token]


def test_phrases_that_cannot_occur_are_refused(network):
    with pytest.raises(UserError, match="have 4 tokens, more than max_new_tokens 3"):
        beam_search(network, [[1]], max_new_tokens=3, selection=Containing([[1, 2], [3, 4]]))
    with pytest.raises(UserError, match="one is empty"):
        Containing([[1], []])


def test_coverage_rewards_attention_to_all_of_the_source(translator):
    sources = [list(range(13)), [3, 4, 5, 6, 7, 3, 4, 5, 6, 7, 8], PROMPTS[2]]
    plain = beam_search(translator, sources, beams=4, samples=4, max_new_tokens=8, stop_ids=[5, 6])
    coverage = Coverage(2.0)
    found = beam_search(translator, sources, beams=4, samples=4, max_new_tokens=8, stop_ids=[5, 6], rescoring=coverage)
    scores = {(each.prompt, tuple(each.tokens)): each.score for each in plain}
    gains = {}
    for each in found:
        gains[each.prompt, tuple(each.tokens)] = each.score - scores[each.prompt, tuple(each.tokens)]
    assert all(gain <= 1e-6 for gain in gains.values()) and len({round(gain, 4) for gain in gains.values()}) > 5
    assert [each.score for each in found[:4]] == sorted((each.score for each in found[:4]), reverse=True)
    # The attention received adds up to the number of tokens, and the eager kernel's own is the same.
    tokens = torch.tensor([[found[0].tokens]])
    received, real = coverage.attention(translator, sources[:1], tokens, torch.tensor([[tokens.shape[-1]]]))
    assert float(received.sum()) == pytest.approx(tokens.shape[-1], abs=1e-4) and bool(real.all())
    expected = 2.0 * float(received.clamp(max=1.0).log().sum())
    assert gains[0, tuple(found[0].tokens)] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="needs an encoder-decoder"):
        beam_search(build(), PROMPTS, max_new_tokens=3, rescoring=coverage)


def test_contrastive_search_is_its_definition():
    network, alpha, k = softer(build(seed=2), 0.5), 0.6, 3
    together = contrastive_search(network, PROMPTS, candidates=k, alpha=alpha, max_new_tokens=8, stop_ids=())
    for prompt, found in zip(PROMPTS, together, strict=True):
        text = list(prompt)
        for _ in range(8):
            with torch.no_grad():
                probabilities, tokens = network(torch.tensor([text])).logits[0, -1].softmax(-1).topk(k)
                scores = []
                for p, token in zip(probabilities, tokens, strict=True):
                    states = network(torch.tensor([[*text, int(token)]])).hidden[0]
                    likeness = torch.cosine_similarity(states[:-1], states[-1:]).max()
                    scores.append(float((1 - alpha) * p - alpha * likeness))
            text.append(int(tokens[max(range(k), key=lambda i: scores[i])]))
        assert found.tokens == text[len(prompt) :]
    for options in ({"candidates": 1}, {"alpha": 0.0}):
        greedy = contrastive_search(network, PROMPTS, max_new_tokens=8, stop_ids=[4], **options)
        expected = generate(network, PROMPTS, sampler=Sampler(), max_new_tokens=8, stop_ids=[4])
        assert [(each.tokens, each.reason) for each in greedy] == [(each.tokens, each.reason) for each in expected]


def test_minimum_bayes_risk_takes_what_the_others_agree_with():
    texts = ["the cat sat on the mat", "the cat sat on a mat", "a dog ran", "the cat sat on the mat"]
    best, means = minimum_bayes_risk(texts)
    assert texts[best] == texts[0] and means[0] == means[3] and min(means) == means[2]
    assert minimum_bayes_risk(["a", "b", "b"], lambda a, b: float(a == b)) == (1, pytest.approx([1 / 3, 2 / 3, 2 / 3]))
    with pytest.raises(UserError, match="no texts"):
        minimum_bayes_risk([])


def test_guidance_is_its_definition(translator):
    for network in (build(), translator):
        negative, scale = [7, 7, 2], 1.7
        guided = Sampler([Guidance(network, negative, scale, 10)])
        found = generate(network, PROMPTS, sampler=guided, max_new_tokens=10, stop_ids=())
        for prompt, each in zip(PROMPTS, found, strict=True):
            said = []
            for token in each.tokens:
                scores = []
                for start in (prompt, negative):
                    with torch.no_grad():
                        if network.reads_apart:
                            logits = network(torch.tensor([[1, *said]]), source=torch.tensor([start])).logits
                        else:
                            logits = network(torch.tensor([start + said])).logits
                    scores.append(logits[0, -1].log_softmax(-1))
                assert token == int((scores[1] + scale * (scores[0] - scores[1])).argmax())
                said.append(token)
    plain = Sampler((), Multinomial())
    same = Sampler([Guidance(network, negative, 1.0, 10)], Multinomial())
    options = dict(max_new_tokens=10, seed=1, stop_ids=(), samples=2)
    expected = generate(network, PROMPTS, sampler=plain, **options)
    assert [e.tokens for e in generate(network, PROMPTS, sampler=same, **options)] == [e.tokens for e in expected]
