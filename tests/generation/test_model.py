"""The object that users hold, and scores."""

import math

import pytest
import torch

from lit_transformer.errors import UserError
from lit_transformer.generation import Model, Sampler, complete, score

from .small import Letters, build


def test_generate_takes_one_prompt_or_several(network):
    model = Model(network, Letters())
    text = model.generate("abc", temperature=0.7, top_k=5, seed=1, max_new_tokens=9)
    assert isinstance(text, str) and len(text) == 9
    assert model.generate(["abc", "d"], temperature=0.7, top_k=5, seed=1, max_new_tokens=9)[0] == text
    assert model.generate([], max_new_tokens=3) == []


def test_stream_and_complete_say_the_same(network):
    model = Model(network, Letters())
    options = dict(temperature=0.9, top_p=0.9, min_p=0.01, seed=4, max_new_tokens=12)
    pieces = list(model.stream("abc", **options))
    assert len(pieces) == 12 and "".join(pieces) == model.generate("abc", **options)
    completions = model.complete(["abc"], samples=3, log_probabilities=True, **options)
    assert completions[0].text == "".join(pieces)
    assert all(len(each.log_probabilities) == 12 for each in completions)


def test_search_gives_texts(network):
    found = Model(network, Letters()).search(["abc", ""], beams=3, samples=2, max_new_tokens=6)
    assert [len(each.text) for each in found] == [6] * 4
    assert found[0].score >= found[1].score


def test_a_stream_that_is_left_restores_the_network(network):
    network.train()
    pieces = Model(network, Letters()).stream("abc", max_new_tokens=50)
    next(pieces)
    assert not torch.is_inference_mode_enabled()
    pieces.close()
    assert network.training


def test_a_sampler_of_ones_own_or_options(network):
    model = Model(network, Letters())
    assert model.generate("a", sampler=Sampler(), max_new_tokens=5) == model.generate(
        "a", temperature=0, max_new_tokens=5
    )
    with pytest.raises(TypeError, match="either sampler or top_k"):
        model.generate("a", sampler=Sampler(), top_k=3)


def test_score_is_the_sum_of_the_steps():
    network, letters = build(), Letters()
    (completion,) = complete(network, letters, ["abc"], max_new_tokens=30, seed=1, log_probabilities=True)
    start, whole = score(network, letters, "abc"), score(network, letters, "abc" + completion.text)
    assert len(start.tokens) == 2 and start.bytes == 2
    assert whole.log_probabilities[2:] == pytest.approx(completion.log_probabilities, abs=1e-4)
    assert whole.log_likelihood - start.log_likelihood == pytest.approx(sum(completion.log_probabilities), abs=1e-3)
    assert whole.perplexity == pytest.approx(math.exp(-whole.log_likelihood / 32))
    assert whole.bits_per_byte == pytest.approx(-whole.log_likelihood / math.log(2) / 32)


def test_with_a_start_the_first_token_is_scored_too():
    network = build(eos_id=0)
    scored = score(network, Letters(), "abc")
    assert scored.tokens == [1, 2, 3] and scored.bytes == 3
    logits = network(torch.tensor([[0, 1, 2]])).logits.log_softmax(-1)[0].detach()
    assert scored.log_probabilities == pytest.approx([float(logits[i, i + 1]) for i in range(3)], abs=1e-4)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 12, 13, 40])
def test_long_texts_are_scored_in_overlapping_windows(length):
    network, letters = build(max_len=8), Letters()
    tokens = torch.randint(13, (length,), generator=torch.Generator().manual_seed(0))
    scored = score(network, letters, letters.decode(tokens.tolist()))
    expected = []
    for i in range(1, length):
        start = 0 if i <= 8 else 4 * (-(-(i - 8) // 4))
        logits = network(tokens[start:i].unsqueeze(0)).logits[0, -1].detach()
        expected.append(float(logits.log_softmax(-1)[tokens[i]]))
    assert scored.log_probabilities == pytest.approx(expected, abs=1e-4)


def test_scores_of_little_text():
    network = build()
    assert math.isnan(score(network, Letters(), "").perplexity)
    assert math.isnan(score(network, Letters(), "a").bits_per_byte)
    with pytest.raises(UserError, match="the text has characters that the tokenizer does not know: '!'"):
        score(network, Letters(), "a!")
