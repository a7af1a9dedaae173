"""Decoder-only networks: published sizes, initialisation, tying."""

from functools import partial

import pytest
import torch

from lit_transformer.blocks import MLP, Attention, Embedding, Layer, LayerNorm, Learned, LinearHead, RMSNorm
from lit_transformer.blocks.linear import ResidualLinear
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import DecoderOnly, Normal
from lit_transformer.vocabulary import Vocabulary


def gpt2(d_model: int, n_layers: int, n_heads: int, vocabulary: int = 50_257, max_len: int = 1024) -> DecoderOnly:
    layer = partial(
        Layer, attention=partial(Attention, bias=True), feed_forward=partial(MLP, bias=True), norm=LayerNorm
    )
    with torch.device("meta"):
        return DecoderOnly(Vocabulary(vocabulary), Dims(d_model, n_layers, n_heads, max_len=max_len), layer, Learned)


@pytest.mark.parametrize(("sizes", "expected"), [((768, 12, 12), 124_439_808), ((1024, 24, 16), 354_823_168)])
def test_published_parameter_counts(sizes: tuple[int, int, int], expected: int) -> None:
    """GPT-2 small and medium, to the unit (Radford et al., 2019; counted by transformers' GPT2LMHeadModel)."""
    assert gpt2(*sizes).parameter_count() == expected


def test_llama_count_is_transformers_own() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=1000,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(config)
        ours = DecoderOnly(Vocabulary(1000), Dims(96, 3, 6, 2, d_ff=256), head=LinearHead)
    assert ours.parameter_count() == sum(p.numel() for p in theirs.parameters())


def test_weights_depend_on_seed_and_name_alone() -> None:
    def build(seed: int, **sizes: int) -> DecoderOnly:
        network = DecoderOnly(Vocabulary(20, max_len=8), Dims(**{"d_model": 16, "n_layers": 2, "n_heads": 2, **sizes}))
        network.initialise(seed)
        return network

    one, same, other, deeper = build(1), build(1), build(2), build(1, n_layers=3)
    for (name, a), (_, b), (_, c) in zip(*(n.named_parameters() for n in (one, same, other)), strict=True):
        assert torch.equal(a, b), name
        assert a.ndim < 2 or not torch.equal(a, c), name
    # Another depth leaves the first layers' inputs alone: no weight depends on what else is drawn.
    assert torch.equal(one.stack.layers[0].attention.query.weight, deeper.stack.layers[0].attention.query.weight)


def test_building_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 2, 2), position=Learned)
    assert torch.equal(before, torch.get_rng_state())


def test_residual_products_start_smaller_with_depth() -> None:
    network = DecoderOnly(Vocabulary(500, max_len=8), Dims(128, 8, 4))
    for module in network.modules():
        if isinstance(module, ResidualLinear):
            assert module.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    flat = DecoderOnly(Vocabulary(500, max_len=8), Dims(128, 8, 4), initialisation=Normal())
    assert flat.stack.layers[0].attention.output.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_head_is_tied_or_not() -> None:
    tied = DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 1, 2))
    assert tied.head.weight is tied.embedding.weight
    free = DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 1, 2), head=LinearHead)
    assert free.head.weight is not free.embedding.weight
    assert free.parameter_count() == tied.parameter_count() + 20 * 16


def test_max_len_comes_from_the_data_unless_said() -> None:
    assert DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 1, 2)).dims.length == 8
    assert DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 1, 2, max_len=32)).dims.length == 32
    with pytest.raises(SizeError, match="max_len"):
        DecoderOnly(Vocabulary(20), Dims(16, 1, 2), position=Learned)


def test_qk_norm_keeps_scores_bounded() -> None:
    layer = partial(Layer, attention=partial(Attention, qk_norm=RMSNorm))
    network = DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 1, 2), layer)
    attention = network.stack.layers[0].attention
    torch.nn.init.normal_(attention.query.weight, std=100.0)
    q = attention.query_norm(attention._heads(attention.query(torch.randn(1, 4, 16))))
    assert q.norm(dim=-1).max() <= 8**0.5 + 1e-3


@pytest.mark.parametrize(
    ("sizes", "key"),
    [
        ({"d_model": 30, "n_heads": 4}, "dims.n_heads"),
        ({"n_heads": 4, "n_kv_heads": 3}, "dims.n_kv_heads"),
        ({"d_model": 0}, "dims.d_model"),
        ({"d_model": 12, "n_heads": 4}, "dims.head_dim"),
    ],
)
def test_sizes_that_do_not_fit_name_their_key(sizes: dict[str, int], key: str) -> None:
    with pytest.raises(SizeError, match=key):
        DecoderOnly(Vocabulary(20, max_len=8), Dims(**sizes))


def test_dropout_acts_in_training_only() -> None:
    layer = partial(Layer, dropout=0.5, attention=partial(Attention, dropout=0.5))
    network = DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 2, 2), layer, embedding=partial(Embedding, dropout=0.5))
    tokens = torch.randint(0, 20, (2, 8))
    assert not torch.equal(network(tokens).logits, network(tokens).logits)
    network.eval()
    assert torch.equal(network(tokens).logits, network(tokens).logits)


def test_flops_count_every_product_once() -> None:
    network = DecoderOnly(Vocabulary(50, max_len=8), Dims(16, 2, 2, d_ff=32))
    weights = 2 * (4 * 16 * 16 + 3 * 16 * 32) + 50 * 16
    assert network.flops_per_token(8) == 6 * weights + 12 * 2 * 16 * 8
