"""Penalties and bans against loops over the tokens."""

import math

import pytest
import torch

from lit_transformer.errors import UserError
from lit_transformer.generation import (
    BannedText,
    BannedWords,
    FrequencyPenalty,
    Greedy,
    History,
    LogitBias,
    MinNewTokens,
    Multinomial,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
    Sampler,
    generate,
)

from .small import SIZE

PROMPTS = [[1, 2, 3, 1, 2], [7], [3, 1, 4, 1, 5, 9, 2, 6]]
NEW = torch.tensor([[4, 4, 1], [7, 8, 7], [1, 4, 12]])


def transcript(new):
    """The three prompts, left-padded, with some new tokens."""
    width = max(map(len, PROMPTS))
    rows = [[0] * (width - len(prompt)) + prompt for prompt in PROMPTS]
    return History(torch.cat([torch.tensor(rows), NEW[:, :new]], 1), [width - len(each) for each in PROMPTS], width)


def changed(processor, row, new):
    """What the definition says of a row's scores."""
    logits = torch.linspace(-3, 3, SIZE).tolist()
    said = NEW[row, :new].tolist()
    whole = PROMPTS[row] + said
    for token in range(SIZE):
        count = said.count(token)
        if isinstance(processor, RepetitionPenalty) and token in whole:
            logits[token] *= 1 / processor.penalty if logits[token] > 0 else processor.penalty
        elif isinstance(processor, FrequencyPenalty):
            logits[token] -= processor.penalty * count
        elif isinstance(processor, PresencePenalty):
            logits[token] -= processor.penalty * (count > 0)
        elif isinstance(processor, NoRepeatNGram):
            n = processor.n
            grams = [whole[i : i + n] for i in range(len(whole) - n + 1)]
            if [*whole[len(whole) - n + 1 :], token] in grams:
                logits[token] = -math.inf
        elif isinstance(processor, BannedWords):
            for *before, last in processor.words:
                if last == token and (not before or whole[-len(before) :] == before):
                    logits[token] = -math.inf
    return logits


@pytest.mark.parametrize(
    "processor",
    [
        RepetitionPenalty(1.5),
        FrequencyPenalty(0.7),
        PresencePenalty(0.7),
        NoRepeatNGram(1),
        NoRepeatNGram(2),
        NoRepeatNGram(3),
        BannedWords([[5], [4, 4], [3, 1, 2, 4, 4, 1], [0, 7], [2, 6, 1]]),
    ],
)
def test_against_the_definition_step_by_step(processor):
    running = processor.begin()
    for new in range(4):
        logits = torch.linspace(-3, 3, SIZE).repeat(3, 1)
        expected = torch.tensor([changed(processor, row, new) for row in range(3)])
        torch.testing.assert_close(running(logits, transcript(new)), expected)


def test_bias_and_minimum():
    logits = torch.zeros(3, SIZE)
    biased = LogitBias({2: 1.5, 4: -math.inf})(logits.clone(), transcript(0))
    assert biased[:, 2].tolist() == [1.5] * 3 and biased[:, 4].tolist() == [-math.inf] * 3 and biased[:, 0].sum() == 0
    short = MinNewTokens(2, [3, 5])
    assert short(logits.clone(), transcript(1)).isinf().sum() == 6
    assert short(logits.clone(), transcript(2)).isfinite().all()
    with pytest.raises(UserError, match="token 99"):
        LogitBias({99: 1.0})(logits, transcript(0))


@pytest.mark.parametrize("n", [2, 3])
def test_no_sequence_is_repeated_in_a_whole_text(network, n):
    (completion,) = generate(
        network, [[1, 2]], sampler=Sampler([NoRepeatNGram(n)], Greedy()), max_new_tokens=60, stop_ids=()
    )
    whole = [1, 2, *completion.tokens]
    grams = [tuple(whole[i : i + n]) for i in range(len(whole) - n + 1)]
    assert len(set(grams)) == len(grams)


def test_a_penalty_does_not_depend_on_the_batch(network):
    sampler = Sampler([RepetitionPenalty(1.8), FrequencyPenalty(0.5)], Greedy())
    together = generate(network, PROMPTS, sampler=sampler, max_new_tokens=20)
    for prompt, completion in zip(PROMPTS, together, strict=True):
        assert generate(network, [prompt], sampler=sampler, max_new_tokens=20)[0].tokens == completion.tokens


@pytest.mark.parametrize("make", [lambda: RepetitionPenalty(0), lambda: NoRepeatNGram(0), lambda: BannedWords([[]])])
def test_values_out_of_range_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_banned_text_cannot_be_written_around(network):
    texts = ["a", "b", "ab", "ba", "aa", "bb", "aba", "c", "bab", "x", "y", "xa", "z"]

    def decode(ids):
        return "".join(texts[i] for i in ids)

    sampler = Sampler([BannedText(["aba", "bb"], decode, SIZE)], Multinomial())
    free = generate(network, [[1], [0, 1]] * 20, max_new_tokens=40, seed=1)
    banned = generate(network, [[1], [0, 1]] * 20, sampler=sampler, max_new_tokens=40, seed=1)
    assert any("aba" in decode(each.tokens) for each in free)
    for each in banned:
        text = decode([[1], [0, 1]][each.prompt % 2] + each.tokens)
        assert "aba" not in text and "bb" not in text
    used = {token for each in banned for token in each.tokens}
    assert used >= {0, 1, 2, 3, 4, 7}  # nothing is ruled out that does no harm
