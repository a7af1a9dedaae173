"""What is recorded is what the eager kernel weighs, with every architecture, kernel, position and mask."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_transformer.analysis.record import record_attention
from lit_transformer.blocks import (
    ALiBi,
    Attention,
    BlockedKernel,
    Causal,
    CoPE,
    DifferentialAttention,
    DynamicNTK,
    EagerKernel,
    FastestKernel,
    GatedAttention,
    LatentAttention,
    Layer,
    LinearAttention,
    RMSNorm,
    RoPE,
    SdpaKernel,
    SlidingWindow,
)
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import generate, sampler_of
from lit_transformer.networks import DecoderOnly, EncoderDecoder, EncoderOnly, Network, PrefixLM
from lit_transformer.vocabulary import Vocabulary

DIMS = Dims(d_model=24, n_layers=2, n_heads=3, n_kv_heads=1, head_dim=8, d_ff=32)
GREEDY = sampler_of(temperature=0)
WORDS = Vocabulary(23, pad_id=0, bos_id=1, eos_id=2, max_len=40)


class Noting(EagerKernel):
    """The specification, which returns its weights, and keeps them here."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def weights(self, *given: object, **named: object) -> Tensor:
        weights = super().weights(*given, **named)
        self.seen.append(weights.detach())
        return weights


def drawn(network: Network) -> Network:
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return network.eval()


def ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 23, shape, generator=torch.Generator().manual_seed(seed))


def inputs(network: Network) -> dict[str, Tensor]:
    documents = torch.tensor([[0] * 12, [-1] * 3 + [0] * 5 + [1] * 4])
    given = {"tokens": ids(2, 12), "documents": documents}
    if network.reads_apart:
        given |= {
            "source": ids(2, 7, seed=1),
            "source_documents": torch.tensor([[0] * 7, [0] * 3 + [1] * 2 + [-1] * 2]),
        }
    if isinstance(network, PrefixLM):
        given["prefix"] = torch.arange(12).unsqueeze(0) < torch.tensor([[4], [6]])
    return given


@pytest.mark.parametrize("kernel", [SdpaKernel, FastestKernel, EagerKernel])
@pytest.mark.parametrize("architecture", [DecoderOnly, EncoderOnly, PrefixLM, EncoderDecoder])
@pytest.mark.parametrize("position", [RoPE, ALiBi, CoPE])
def test_weights_are_the_eager_kernels(architecture, kernel, position) -> None:
    eager = Noting()
    layer = partial(Layer, attention=partial(Attention, qk_norm=RMSNorm))
    specification = drawn(architecture(WORDS, DIMS, layer, position, kernel=eager))
    specification(**inputs(specification))
    network = drawn(architecture(WORDS, DIMS, layer, position, kernel=kernel()))
    with record_attention(network) as record:
        output = network(**inputs(network))
    assert len(record.layers) == len(eager.seen) == (6 if architecture is EncoderDecoder else 2)
    for layer_record, expected in zip(record.layers, eager.seen, strict=True):
        torch.testing.assert_close(layer_record.weights(), expected, rtol=1e-5, atol=1e-5)
        keys = layer_record.shape[1]
        tiles = torch.cat([F.pad(tile, (0, keys - tile.shape[-1])) for _, tile in layer_record.tiles(5)], dim=2)
        torch.testing.assert_close(tiles, layer_record.weights())
        torch.testing.assert_close(layer_record.weights(slice(1, 2), slice(3, 9)), expected[:, 1:2, 3:9],
                                   rtol=1e-5, atol=1e-5)  # fmt: skip
        torch.testing.assert_close(layer_record.weights(rows=slice(1, None, 3)), expected[:, :, 1::3],
                                   rtol=1e-5, atol=1e-5)  # fmt: skip
    torch.testing.assert_close(output.hidden, network(**inputs(network)).hidden)  # recording changed nothing


def test_capped_windowed_scores() -> None:
    layer = partial(Layer, attention=partial(Attention, soft_cap=0.7))
    eager = Noting()
    mask = Causal() & SlidingWindow(4)
    specification = drawn(DecoderOnly(WORDS, DIMS, layer, mask=mask, kernel=eager))
    specification(ids(1, 12))
    network = drawn(DecoderOnly(WORDS, DIMS, layer, mask=mask, kernel=BlockedKernel(4)))
    with record_attention(network) as record:
        network(ids(1, 12))
    for found, expected in zip(record.layers, eager.seen, strict=True):
        torch.testing.assert_close(found.weights(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", [LatentAttention, DifferentialAttention, GatedAttention])
def test_other_attentions_have_rows_that_sum_to_one(attention) -> None:
    dims = Dims(d_model=24, n_layers=2, n_heads=2, d_ff=32)
    network = drawn(DecoderOnly(WORDS, dims, partial(Layer, attention=attention)))
    with record_attention(network) as record:
        network(ids(2, 9))
    assert [each.shape for each in record.layers] == [(9, 9)] * 2
    for each in record.layers:
        torch.testing.assert_close(each.weights().sum(-1), torch.ones(2, each.heads, 9))


@pytest.mark.parametrize("position", [RoPE, ALiBi, partial(RoPE, scaling=DynamicNTK)])
def test_cached_decoding_is_one_record(position) -> None:
    network = drawn(DecoderOnly(WORDS, DIMS, position=position))
    tokens = ids(1, 10)
    with record_attention(network) as whole:
        network(tokens)
    cache = network.new_cache(1, 10)
    with record_attention(network) as steps:
        for piece in tokens.split([6, 1, 1, 2], dim=1):
            cache = network(piece, cache=cache).cache
    for one, other in zip(steps.layers, whole.layers, strict=True):
        assert len(one.calls) == 4
        torch.testing.assert_close(one.weights(rows=slice(4, 9)), other.weights(rows=slice(4, 9)), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            one.weights(rows=slice(1, None, 4)), other.weights(rows=slice(1, None, 4)), rtol=1e-5, atol=1e-5
        )


def test_generating_is_recorded_whatever_form_decodes() -> None:
    network = drawn(DecoderOnly(WORDS, DIMS))
    with record_attention(network) as record:
        (completion,) = generate(network, [[3, 4, 5]], sampler=GREEDY, max_new_tokens=30, stop_ids=())
    tokens = torch.tensor([[3, 4, 5, *completion.tokens[:-1]]])
    with record_attention(network) as whole:
        network(tokens)
    for one, other in zip(record.layers, whole.layers, strict=True):
        torch.testing.assert_close(one.weights(), other.weights(), rtol=1e-4, atol=1e-5)


def test_places_and_names() -> None:
    network = drawn(EncoderDecoder(WORDS, DIMS))
    with record_attention(network) as record:
        network(**inputs(network))
    assert [(each.stack, each.layer, each.cross) for each in record.of("decoder", cross=True)] == [
        ("decoder", 0, True), ("decoder", 1, True)]  # fmt: skip
    assert [each.name for each in record.of("encoder")] == ["encoder.layers.0.attention", "encoder.layers.1.attention"]
    assert record["decoder.layers.1.cross_attention"].shape == (12, 7)
    with pytest.raises(KeyError, match="recorded are"):
        record["nowhere"]


def test_nothing_to_record() -> None:
    network = drawn(DecoderOnly(WORDS, DIMS))
    network.stack.layers = torch.nn.ModuleList()
    with pytest.raises(UserError, match="no attention"), record_attention(network):
        pass
    linear = drawn(DecoderOnly(WORDS, Dims(24, 1, 2), partial(Layer, attention=LinearAttention)))
    with record_attention(linear) as record:
        linear(ids(1, 5))
    assert record.layers == []
