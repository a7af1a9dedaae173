"""Beam search against exhaustive search, greedy decoding and transformers."""

import itertools

import pytest
import torch

from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import (
    BannedWords,
    Certain,
    Eager,
    Likely,
    NoRepeatNGram,
    Sampler,
    beam_search,
    generate,
)
from lit_transformer.generation.scoring import log_probabilities
from lit_transformer.networks import Network, Output
from lit_transformer.vocabulary import Vocabulary

from .small import POSITIONS, build

PROMPTS = [[1, 2, 3, 0, 2], [3], [3, 1, 0, 1, 2, 1, 2]]


@pytest.fixture(scope="module")
def everything():
    """A network of four tokens, and all completions of each prompt by up to four tokens, 0 being the end."""
    network = build(size=4)
    with torch.no_grad():
        network.embedding.weight.mul_(0.3)
    found = []
    for prompt in PROMPTS:
        endings = [list(tokens) for n in range(4) for tokens in itertools.product((1, 2, 3), repeat=n)]
        wholes = [[*tokens, 0] for tokens in endings] + [
            list(tokens) for tokens in itertools.product((1, 2, 3), repeat=4)
        ]
        found.append([(sum(log_probabilities(network, prompt + whole)[len(prompt) - 1 :]), whole) for whole in wholes])
    return network, found


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 1.5])
def test_with_enough_beams_it_is_exhaustive(everything, penalty):
    network, found = everything
    results = beam_search(
        network,
        PROMPTS,
        beams=81,
        max_new_tokens=4,
        stop_ids=[0],
        samples=9,
        length_penalty=penalty,
        patience=Certain(),
    )
    for i in range(len(PROMPTS)):
        expected = sorted(((total / len(whole) ** penalty, whole) for total, whole in found[i]), reverse=True)[:9]
        mine = results[9 * i : 9 * i + 9]
        assert [each.score for each in mine] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert mine[0].tokens == [token for token in expected[0][1] if token]
        assert all(each.reason == ("length" if len(each.tokens) == 4 else "stop id") for each in mine)


@pytest.mark.parametrize("patience", [Eager(), Likely()])
def test_one_beam_is_greedy(patience):
    network = build(seed=2, eos_id=3)
    greedy = generate(network, PROMPTS, sampler=Sampler(), max_new_tokens=25)
    beams = beam_search(network, PROMPTS, beams=1, max_new_tokens=25, patience=patience)
    assert [each.tokens for each in beams] == [each.tokens for each in greedy]
    assert [each.reason for each in beams] == [each.reason for each in greedy]


@pytest.mark.parametrize("position", POSITIONS, ids=lambda each: each.__name__)
def test_batched_is_single(position):
    network = build(position)
    with torch.no_grad():
        network.embedding.weight.mul_(0.5)
    together = beam_search(network, PROMPTS, beams=3, max_new_tokens=8, stop_ids=[5, 6], samples=3)
    for i, prompt in enumerate(PROMPTS):
        alone = beam_search(network, [prompt], beams=3, max_new_tokens=8, stop_ids=[5, 6], samples=3)
        assert [each.tokens for each in alone] == [each.tokens for each in together[3 * i : 3 * i + 3]]
        scores = [each.score for each in alone]
        assert scores == pytest.approx([each.score for each in together[3 * i : 3 * i + 3]], abs=1e-4)
        assert scores == sorted(scores, reverse=True)
        for each in alone:
            whole = each.tokens if each.reason == "length" else None
            if whole:
                total = sum(log_probabilities(network, [*prompt, *whole])[len(prompt) - 1 :])
                assert each.score == pytest.approx(total / len(whole), abs=1e-4)


def test_more_beams_find_no_worse():
    network = build(seed=3)
    with torch.no_grad():
        network.embedding.weight.mul_(0.4)
    best = [beam_search(network, [[1, 2]], beams=k, max_new_tokens=6, stop_ids=())[0].score for k in (1, 4, 16, 64)]
    assert best[0] <= best[-1] and max(best) == best[-1]


def test_processors_act_on_every_beam():
    network = build()
    options = dict(beams=4, max_new_tokens=12, samples=4, stop_ids=())
    banned = beam_search(network, PROMPTS, processors=[BannedWords([[2], [7]]), NoRepeatNGram(2)], **options)
    for each in banned:
        assert not {2, 7} & set(each.tokens)
        whole = PROMPTS[each.prompt] + each.tokens
        new = list(zip(whole[len(PROMPTS[each.prompt]) - 1 :], each.tokens, strict=False))
        assert len(set(new)) == len(new)


@pytest.mark.parametrize(("early_stopping", "patience"), [(True, Eager()), (False, Likely()), ("never", Certain())])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_it_is_transformers_beam_search(early_stopping, patience, penalty):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=3, pad_token_id=0
    )
    torch.manual_seed(1)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    network = Borrowed(theirs, 11)
    prompts = [[1, 2, 4, 5], [7, 8, 9, 10], [2, 2, 2, 2]]
    expected = theirs.generate(
        torch.tensor(prompts), num_beams=4, max_new_tokens=10, do_sample=False, length_penalty=penalty,
        early_stopping=early_stopping, num_return_sequences=3, attention_mask=torch.ones(3, 4, dtype=torch.long),
    )  # fmt: skip
    mine = beam_search(
        network, prompts, beams=4, max_new_tokens=10, stop_ids=[3], samples=3, length_penalty=penalty, patience=patience
    )
    for row, each in zip(expected[:, 4:].tolist(), mine, strict=True):
        cut = row.index(3) if 3 in row else len(row)
        assert each.tokens == row[:cut]


class Borrowed(Network):
    """A model of transformers behind our network's interface, without a cache of its own."""

    def __init__(self, model, size):
        super().__init__(Vocabulary(size), Dims(max_len=64))
        self.model = model

    def new_cache(self, batch, max_len, dtype=None, device=None):
        return Tokens(torch.zeros(batch, 0, dtype=torch.long))

    def forward(self, tokens, documents=None, positions=None, cache=None):
        cache = Tokens(torch.cat((cache.tokens, tokens), 1))
        return Output(self.model(cache.tokens).logits[:, -1:], torch.nn.Identity(), cache)


class Tokens:
    """Remembers the tokens themselves."""

    documents = None

    def __init__(self, tokens):
        self.tokens = tokens

    @property
    def length(self):
        return self.tokens.shape[1]

    def reorder(self, index):
        return Tokens(self.tokens[index])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams 0, samples 1 and max_new_tokens 256 must be at least 1"),
        ({"beams": 2, "samples": 3}, "samples at most beams"),
        ({"max_new_tokens": 0}, "max_new_tokens 0 must be at least 1"),
        ({"max_new_tokens": 64}, "leaves room for 60 new ones in the context of 64"),
    ],
)
def test_what_cannot_be_searched_is_said(network, options, message):
    with pytest.raises(UserError, match=message):
        beam_search(network, [[1, 2, 3, 4, 5]], **options)
