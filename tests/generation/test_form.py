"""The decoding form computes what the network computes, whatever parts it is made of."""

from functools import partial

import pytest
import torch

from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.feed_forward import GEGLU, MLP, SwiGLU
from lit_transformer.blocks.kernels import EagerKernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.linear_attention import LinearAttention
from lit_transformer.blocks.masks import Causal, Sinks, SlidingWindow
from lit_transformer.blocks.moe import MixtureOfExperts
from lit_transformer.blocks.norms import LayerNorm, RMSNorm
from lit_transformer.blocks.position import ALiBi, DynamicNTK, Learned, RoPE, YaRN
from lit_transformer.blocks.residual import Parallel, PostNorm, Sandwich
from lit_transformer.dims import Dims
from lit_transformer.generation import Float16, Int8, Sampler, Weights, decoding_form, generate
from lit_transformer.generation.form import JointAttention
from lit_transformer.generation.runner import Runner
from lit_transformer.networks import DecoderOnly, EncoderDecoder, PrefixLM
from lit_transformer.vocabulary import Vocabulary

VOCABULARY = Vocabulary(13, max_len=64, bos_id=1)
DIMS = Dims(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)
PROMPTS = [[1, 2, 3, 4, 5], [7], [3, 1, 4, 1, 5, 9, 2, 6], [12, 11]]
NETWORKS = {
    "llama": partial(DecoderOnly),
    "gpt2": partial(
        DecoderOnly,
        layer=partial(
            Layer, norm=LayerNorm, feed_forward=partial(MLP, bias=True), attention=partial(Attention, bias=True)
        ),
        position=Learned,
    ),
    "qk norm, GEGLU, sandwich": partial(
        DecoderOnly,
        layer=partial(
            Layer, attention=partial(Attention, qk_norm=RMSNorm), feed_forward=GEGLU, residual=Sandwich, dropout=0.1
        ),
    ),
    "soft cap, post-norm, part of the head turns": partial(
        DecoderOnly,
        layer=partial(Layer, attention=partial(Attention, soft_cap=5.0), residual=PostNorm),
        position=partial(RoPE, share=0.5),
    ),
    "YaRN, eager, parallel": partial(
        DecoderOnly,
        layer=partial(Layer, residual=Parallel),
        kernel=EagerKernel(),
        position=partial(RoPE, scaling=partial(YaRN, factor=2.0, trained_len=32)),
    ),
    "dynamic NTK": partial(DecoderOnly, position=partial(RoPE, scaling=partial(DynamicNTK, factor=2.0, trained_len=8))),
    "window and sinks, ALiBi": partial(DecoderOnly, mask=Causal() & (SlidingWindow(4) | Sinks(1)), position=ALiBi),
    "own mask and position, experts": partial(
        DecoderOnly,
        layer=[
            partial(Layer, feed_forward=partial(MixtureOfExperts, n_experts=4, expert=SwiGLU)),
            partial(Layer, mask=Causal() & SlidingWindow(5), position=partial(RoPE, base=100.0)),
        ],
    ),
    "linear attention": partial(DecoderOnly, layer=partial(Layer, attention=LinearAttention)),
    "prefix-LM": partial(PrefixLM),
    "encoder-decoder": partial(EncoderDecoder),
}


@pytest.fixture(params=NETWORKS, scope="module")
def network(request):
    """Each of the networks, with logits spread out enough that the most probable token is clear."""
    torch.manual_seed(0)
    network = NETWORKS[request.param](VOCABULARY, DIMS).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
            elif not (parameter == 1).all():
                parameter.normal_()
    return network


@pytest.mark.parametrize("rows", [1, 4])
@torch.no_grad()
def test_it_scores_tokens_as_the_network_does(network, rows):
    plain, formed = Runner(network), Runner(decoding_form(network, rows=rows))
    tokens = torch.randint(13, (6, rows), generator=torch.Generator().manual_seed(1))
    for prompts in (PROMPTS[:rows], [PROMPTS[0]] * rows):  # with and without padding
        expected, found = plain.prefill(prompts, 32), formed.prefill(prompts, 32)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
        for each in tokens:
            torch.testing.assert_close(formed.step(each), plain.step(each), atol=2e-4, rtol=2e-4)
        some = tokens[:3].T.tolist()
        torch.testing.assert_close(formed.extend(some), plain.extend(some), atol=2e-4, rtol=2e-4)


def test_long_generations_use_it_and_write_the_same(network, monkeypatch):
    def text():
        return [each.tokens for each in generate(network, PROMPTS, sampler=Sampler(), max_new_tokens=26, stop_ids=())]

    found = text()
    monkeypatch.setattr(Weights, "worth_from", 1000)
    assert found == text()


def test_the_network_itself_stays_as_it_was(network):
    before = {name: (type(module), module.__dict__.keys()) for name, module in network.named_modules()}
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    generate(network, PROMPTS, max_new_tokens=30)
    assert before == {name: (type(module), module.__dict__.keys()) for name, module in network.named_modules()}
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_what_is_hooked_compiled_or_not_float32_is_left_alone():
    network = DecoderOnly(VOCABULARY, DIMS).eval()
    form = decoding_form(network)
    assert any(isinstance(module, JointAttention) for module in form.modules()) and decoding_form(form) is form
    seen = []
    hook = network.stack.layers[0].attention.query.register_forward_hook(lambda *_: seen.append(1))
    generate(network, [[1, 2]], max_new_tokens=30)
    assert len(seen) == 30
    hook.remove()
    network.stack.layers[0]._compiled_call_impl = network.stack.layers[0]._call_impl
    assert decoding_form(network) is network
    network.stack.layers[0]._compiled_call_impl = None
    assert decoding_form(network.double()) is not form and decoding_form(network) is network


@pytest.mark.parametrize(("weights", "tolerance"), [(Float16(), 0.01), (Int8(), 0.1)])
@torch.no_grad()
def test_smaller_weights_score_nearly_the_same(weights, tolerance):
    torch.manual_seed(0)
    network = DecoderOnly(Vocabulary(13, max_len=64), Dims(d_model=64, n_layers=2, n_heads=4)).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.mul_(3)
    form = decoding_form(network, weights)
    tokens = torch.randint(13, (3, 40))
    expected = network(tokens).logits.log_softmax(-1)
    found = form(tokens).logits.log_softmax(-1)
    assert 0 < (found - expected).abs().max() < tolerance * expected.abs().max()
    runner = Runner(form)
    runner.prefill(tokens[:, :-2].tolist(), 40)
    for i in (-2, -1):
        near = runner.step(tokens[:, i]).log_softmax(-1)
    assert (near - expected[:, -1]).abs().max() < tolerance * expected.abs().max()
