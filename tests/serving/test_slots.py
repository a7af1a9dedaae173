"""Rows that enter and leave one cache give what each gives alone."""

import random
from functools import partial

import pytest
import torch

from lit_transformer.blocks import Layer, SwiGLU
from lit_transformer.blocks.masks import Causal, PrefixCausal, Sinks, SlidingWindow
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import Runner
from lit_transformer.generation.form import decoding_form
from lit_transformer.networks import DecoderOnly, EncoderDecoder, PrefixLM
from lit_transformer.serving import Slots
from lit_transformer.vocabulary import Vocabulary
from tests.generation.small import ATTENTIONS, POSITIONS, SIZE, build

WINDOW = 24


def alone(network, prompt, tokens):
    """Scores after the prompt and after each of the tokens."""
    runner = Runner(network)
    with torch.inference_mode():
        scores = [runner.prefill([prompt], len(network.opening(prompt)) + len(tokens))[0]]
        scores += [runner.step(torch.tensor([token]))[0] for token in tokens]
    return torch.stack(scores)


def compare(network, slots=3, requests=9, seed=0):
    """Requests of random lengths come and go; every score is compared with that of the request alone."""
    draw = random.Random(seed)
    wanted = [
        ([draw.randrange(1, SIZE) for _ in range(draw.randint(1, 9))], [draw.randrange(1, SIZE) for _ in range(n)])
        for n in (draw.randint(0, 15) for _ in range(requests))
    ]
    rows, found = Slots(network, slots, WINDOW), [[] for _ in wanted]
    waiting, active = list(range(requests)), []
    while waiting or active:
        joining = waiting[: min(rows.free, draw.randint(0 if active else 1, slots))]
        if joining:
            waiting = waiting[len(joining) :]
            for i, logits in zip(joining, rows.enter([wanted[i][0] for i in joining]), strict=True):
                found[i].append(logits)
            active += joining
        for row in reversed(range(len(active))):
            if len(found[active[row]]) > len(wanted[active[row]][1]):
                rows.leave(row)
                last = active.pop()
                if row < len(active):
                    active[row] = last
        if active:
            logits = rows.step([wanted[i][1][len(found[i]) - 1] for i in active])
            for i, row in zip(active, logits, strict=True):
                found[i].append(row)
    for (prompt, tokens), scores in zip(wanted, found, strict=True):
        expected = alone(network, prompt, tokens)
        assert torch.allclose(torch.stack(scores), expected, atol=2e-4, rtol=1e-4), (prompt, tokens)


@pytest.mark.parametrize(
    "position", [each for each in POSITIONS if ".blocks." in f"{each.__module__}."], ids=lambda each: each.__name__
)
def test_every_position(position):
    compare(build(position), seed=1)


@pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda each: each.__name__)
def test_every_attention(attention):
    compare(build(attention=attention), seed=2)


DIMS = Dims(d_model=32, n_layers=2, n_heads=4)
VOCABULARY = Vocabulary(size=SIZE, eos_id=0, max_len=64)


@pytest.mark.parametrize(
    "network",
    [
        lambda: EncoderDecoder(VOCABULARY, DIMS),
        lambda: PrefixLM(VOCABULARY, DIMS),
        lambda: PrefixLM(VOCABULARY, DIMS, mask=PrefixCausal() & (SlidingWindow(4) | Sinks(2))),
        lambda: DecoderOnly(VOCABULARY, DIMS, mask=Causal() & (SlidingWindow(3) | Sinks(1))),
        lambda: DecoderOnly(VOCABULARY, DIMS, layer=[partial(Layer, attention=ATTENTIONS[-1]), Layer]),
    ],
    ids=["encoder-decoder", "prefix-LM", "prefix-LM with a window", "window with sinks", "layers of two kinds"],
)
def test_every_architecture(network):
    torch.manual_seed(0)
    compare(network().eval(), seed=3)


def test_the_decoding_form():
    torch.manual_seed(0)
    network = DecoderOnly(VOCABULARY, DIMS, layer=partial(Layer, feed_forward=SwiGLU)).eval()
    compare(decoding_form(network, None, 3), seed=4)


def test_the_end_of_the_cache_is_passed_many_times():
    network = build()
    rows = Slots(network, 2, WINDOW)
    long = [1] * 20
    for _ in range(20):
        rows.enter([[2, 3], long])
        steps = torch.stack([rows.step([4, 4]) for _ in range(4)])
        for row, prompt in enumerate(([2, 3], long)):
            assert torch.allclose(steps[:, row], alone(network, prompt, [4] * 4)[1:], atol=2e-4)
        rows.leave(1)
        rows.enter([long])  # the short one stays, so that the end moves on
        rows.leave(0)
        rows.leave(0)
    rows.enter([[1]])
    rows.clear()
    assert rows.free == 2


def test_a_layer_that_remembers_otherwise_is_refused():
    network = build()
    network.new_cache = lambda *sizes: type("C", (), {"layers": [object()], "positions": torch.zeros(1, 1)})()
    with pytest.raises(UserError, match="cannot be batched continuously"):
        Slots(network, 1, 8)
