"""Ways to remember: int8, a stream in constant memory, prompts of earlier calls."""

import pytest
import torch

from lit_transformer.blocks.linear_attention import LinearAttention
from lit_transformer.blocks.masks import Mask
from lit_transformer.blocks.position import ALiBi, Learned, NoPosition, RoPE
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import (
    Compiled,
    FixedShape,
    Int8Remembering,
    Sampler,
    SharedPrefix,
    Streaming,
    decoding_form,
    generate,
    sampler_of,
)
from lit_transformer.generation.runner import Runner
from lit_transformer.networks import DecoderOnly, EncoderDecoder
from lit_transformer.vocabulary import Vocabulary

from .small import build

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


def decoder(position=RoPE, n_layers=2, mask=None):
    torch.manual_seed(0)
    dims = Dims(d_model=32, n_layers=n_layers, n_heads=4, n_kv_heads=2)
    network = DecoderOnly(Vocabulary(13), dims, position=position, mask=mask).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return network


class Held(Mask):
    """Which keys a stream without sinks still holds when a query comes: forgetting goes by strides."""

    def __init__(self, window: int, stride: int) -> None:
        self.window, self.stride = window, stride

    def allowed(self, q, k):
        gone = ((q.index - self.window) // self.stride + 1).clamp(min=0) * self.stride
        return (k.index <= q.index) & (k.index >= gone)


@pytest.mark.parametrize("formed", [False, True])
@pytest.mark.parametrize("position", [RoPE, ALiBi, NoPosition])
@torch.no_grad()
def test_a_stream_is_the_whole_text_behind_a_mask(position, formed):
    network = decoder(position)
    runner = Runner(decoding_form(network) if formed else network, Streaming(12, sinks=0, stride=3))
    text = torch.randint(13, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    found = [runner.prefill([text[:8]], 1000)[0]]
    size = runner.cache.nbytes
    for token in text[8:]:
        found.append(runner.step(torch.tensor([token]))[0])
    assert runner.cache.nbytes == size and runner.length <= 12
    expected = decoder(position, mask=Held(12, 3))(torch.tensor([text])).logits[0, 7:]
    torch.testing.assert_close(torch.stack(found), expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("position", [RoPE, ALiBi, NoPosition])
@torch.no_grad()
def test_sinks_stand_right_before_the_window(position):
    network = decoder(position, n_layers=1)  # of one layer, so that keys and values know nothing of what was forgotten
    runner = Runner(network, Streaming(10, sinks=3, stride=2))
    text, held = [*PROMPT], [*PROMPT]
    runner.prefill([text], 1000)
    for token in torch.randint(13, (30,), generator=torch.Generator().manual_seed(1)).tolist():
        if len(held) == 10:
            held = held[:3] + held[5:]
        held.append(token)
        expected = network(torch.tensor([held])).logits[0, -1]
        torch.testing.assert_close(runner.step(torch.tensor([token]))[0], expected, atol=1e-4, rtol=1e-4)


def test_streams_go_past_the_context_and_refuse_what_cannot_stream():
    network = build(max_len=16)
    options = dict(sampler=Sampler(), stop_ids=())
    (long,) = generate(network, [PROMPT], max_new_tokens=60, remembering=Streaming(16, stride=4), **options)
    assert len(long.tokens) == 60
    (short,) = generate(network, [PROMPT], max_new_tokens=8, **options)
    assert long.tokens[:8] == short.tokens
    with pytest.raises(UserError, match="Learned does not let a text lose its middle"):
        generate(build(Learned), [PROMPT], remembering=Streaming(32), **options)
    with pytest.raises(UserError, match="holds RecurrentState"):
        generate(build(attention=LinearAttention), [PROMPT], remembering=Streaming(32), **options)
    with pytest.raises(UserError, match="prompts of different lengths cannot be streamed"):
        generate(build(), [PROMPT, PROMPT[:3]], remembering=Streaming(32), max_new_tokens=60, **options)
    with pytest.raises(UserError, match="window 16 must be more than sinks 4 and stride 16"):
        Streaming(16)


@torch.no_grad()
def test_an_int8_cache_scores_nearly_the_same_in_a_quarter_of_the_memory():
    network = decoder()
    tokens = torch.randint(13, (3, 40), generator=torch.Generator().manual_seed(1))
    plain, small = Runner(network), Runner(decoding_form(network), Int8Remembering())
    for runner in (plain, small):
        runner.prefill(tokens[:, :20].tolist(), 60)
        runner.reorder(torch.tensor([2, 0, 1]))
    for i in range(20, 40):
        expected, found = (runner.step(tokens[:, i]).log_softmax(-1) for runner in (plain, small))
        assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert small.cache.nbytes < 0.4 * plain.cache.nbytes  # heads of 8 numbers have a scale each; larger ones save more
    torch.manual_seed(0)
    translator = EncoderDecoder(Vocabulary(13, bos_id=1), Dims(d_model=32, n_layers=2, n_heads=4)).eval()
    found = generate(translator, [PROMPT], sampler=Sampler(), max_new_tokens=5, remembering=Int8Remembering())
    assert len(found[0].tokens) == 5


@pytest.mark.parametrize("position", [RoPE, ALiBi, Learned])
def test_a_shared_beginning_is_read_once(position, monkeypatch):
    network = build(position)
    start = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    calls = [
        [[*start, 3, 4]],
        [[*start, 3, 4], [*start, 7], [*start, 1, 1, 1]],
        [[*start[:9], 12]],
        [[*start, 3, 4, 5]],
    ]
    shared, read = SharedPrefix(), []
    options = dict(sampler=sampler_of(0.8), max_new_tokens=6, seed=1, stop_ids=())
    expected = [[each.tokens for each in generate(network, prompts, **options)] for prompts in calls]
    forward = DecoderOnly.forward

    def counted(self, tokens, *args, **kwargs):
        read.append(tokens.shape[1])
        return forward(self, tokens, *args, **kwargs)

    monkeypatch.setattr(DecoderOnly, "forward", counted)
    for prompts, texts in zip(calls, expected, strict=True):
        assert [each.tokens for each in generate(network, prompts, remembering=shared, **options)] == texts
    assert [length for length in read if length > 1] == [12, 3] and shared.reused == 10 + 9 + 12
    assert shared.nbytes > 0
    other = build(position, seed=5)
    assert generate(other, calls[0], remembering=shared, **options)[0].tokens == (
        generate(other, calls[0], **options)[0].tokens
    )


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_steps_of_fixed_shape_write_the_same(attention):
    if attention == "self":
        network = build(max_len=24)
    else:
        torch.manual_seed(0)
        network = EncoderDecoder(Vocabulary(13, bos_id=1, max_len=40), Dims(d_model=32, n_layers=2, n_heads=4)).eval()
    prompts = [PROMPT, [3], [4, 5, 6]]
    for rows in (prompts, prompts[:1]):
        options = dict(sampler=sampler_of(0.8), seed=1, max_new_tokens=30, samples=2, stop_ids=())
        expected = generate(network, rows, **options)
        found = generate(network, rows, remembering=FixedShape(), **options)
        assert [each.tokens for each in found] == [each.tokens for each in expected]
    with pytest.raises(UserError, match="ALiBi counts the places of the cache"):
        generate(build(ALiBi), [PROMPT], remembering=FixedShape(), max_new_tokens=3)


@pytest.mark.slow
def test_compiled_steps_write_the_same_and_leave_the_network_as_it_is():
    network = build()
    options = dict(sampler=Sampler(), max_new_tokens=12, stop_ids=())
    expected = generate(network, [PROMPT, [3]], **options)
    compiled = Compiled()
    for _ in range(2):
        found = generate(network, [PROMPT, [3]], remembering=compiled, **options)
        assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert all(module._compiled_call_impl is None for module in network.modules())
