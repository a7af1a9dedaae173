"""Encoder-decoder, encoder-only and prefix-LM: published sizes, caches, padding, packing, decoding."""

from functools import partial

import pytest
import torch
from torch import Tensor

from lit_transformer.blocks import (
    MLP,
    Attention,
    CausalRelativeBias,
    CrossAttention,
    Embedding,
    Layer,
    LayerNorm,
    Learned,
    NoPosition,
    PostNorm,
    RelativeBias,
    ReLU,
    ScaledEmbedding,
    Sinusoidal,
)
from lit_transformer.dims import Dims, SizeError
from lit_transformer.errors import UserError
from lit_transformer.generation import beam_search, generate, sampler_of
from lit_transformer.networks import DecoderOnly, EncoderDecoder, EncoderOnly, EncoderParts, Network, PrefixLM
from lit_transformer.training.recompute import recompute_layers
from lit_transformer.vocabulary import Vocabulary

SMALL = Dims(d_model=24, n_layers=2, n_heads=3, n_kv_heads=1, head_dim=8, d_ff=32)
WORDS = Vocabulary(23, pad_id=0, bos_id=1, eos_id=2, max_len=40)


def biased(**parts: object) -> partial[Layer]:
    return partial(Layer, attention=partial(Attention, bias=True), feed_forward=partial(MLP, bias=True),
                   norm=LayerNorm, **parts)  # fmt: skip


def bert(dims: Dims) -> EncoderOnly:
    """With the norm behind the embeddings, and none behind the stack: its order is post-norm."""
    embedding = partial(Embedding, types=2, norm=LayerNorm)
    return EncoderOnly(Vocabulary(30_522), dims, biased(residual=PostNorm), Learned, embedding=embedding)


def drawn(network: Network) -> Network:
    """Large weights in float64, so that nothing is lost in small numbers."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
    return network.double().eval()


def translator(**parts: object) -> EncoderDecoder:
    network = drawn(EncoderDecoder(WORDS, SMALL, **parts))
    assert isinstance(network, EncoderDecoder)
    return network


def ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(3, 23, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dims", "with_pooler"), [(Dims(768, 12, 12, max_len=512), 109_482_240),
                                                   (Dims(1024, 24, 16, max_len=512), None)])  # fmt: skip
def test_bert_counts(dims: Dims, with_pooler: int | None) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=dims.d_model, num_hidden_layers=dims.n_layers,
                                     num_attention_heads=dims.n_heads, intermediate_size=dims.ff_size)  # fmt: skip
    with torch.device("meta"):
        ours, theirs = bert(dims), transformers.BertModel(config)
    pooler = dims.d_model * dims.d_model + dims.d_model
    expected = sum(p.numel() for p in theirs.parameters())
    assert ours.parameter_count() + pooler == expected
    assert with_pooler in (None, expected)


def test_t5_small_count() -> None:
    """60,506,624 (Raffel et al., 2020): one embedding for all, biases of both stacks' first layers."""
    layer = partial(Layer, feed_forward=partial(MLP, activation=ReLU))
    with torch.device("meta"):
        network = EncoderDecoder(Vocabulary(32_128), Dims(512, 6, 8, d_ff=2048), layer, CausalRelativeBias,
                                 encoder=EncoderParts(position=RelativeBias))  # fmt: skip
    assert network.parameter_count() == 60_506_624


@pytest.mark.parametrize(("dims", "millions"), [(Dims(512, 6, 8), 65), (Dims(1024, 6, 16), 213)])
def test_original_transformer_counts(dims: Dims, millions: int) -> None:
    """Base and big at a shared vocabulary of 37,000, against torch.nn's layers; the paper rounds to 65M and 213M.

    torch.nn's have biases in the attention, which the paper's formulas do not.
    """
    layer = partial(biased(residual=PostNorm, cross_attention=partial(CrossAttention, bias=True)))
    with torch.device("meta"):
        ours = EncoderDecoder(Vocabulary(37_000), dims, layer, Sinusoidal, embedding=ScaledEmbedding)
        theirs = torch.nn.Transformer(dims.d_model, dims.n_heads, 6, 6, dims.ff_size)
        plain = EncoderDecoder(Vocabulary(37_000), dims, partial(layer, attention=Attention,
                               cross_attention=CrossAttention), Sinusoidal, embedding=ScaledEmbedding)  # fmt: skip
    final_norms = 2 * 2 * dims.d_model  # which torch.nn adds behind each stack, and the paper does not have
    expected = sum(p.numel() for p in theirs.parameters()) - final_norms + 37_000 * dims.d_model
    assert ours.parameter_count() == expected
    assert abs(plain.parameter_count() / 1e6 - millions) < 3


@pytest.mark.parametrize("position", [NoPosition, Learned, Sinusoidal, CausalRelativeBias])
def test_cache_of_an_encoder_decoder(position: type) -> None:
    """Token by token and in pieces, with a padded source that is named once."""
    network = translator(position=position)
    source, tokens = ids(2, 7), ids(2, 9, seed=1)
    documents = torch.tensor([[0] * 7, [-1] * 3 + [0] * 4])
    whole = network(tokens, source=source, source_documents=documents).logits
    for sizes in ([1] * 9, [4, 1, 3, 1]):
        cache, parts = network.new_cache(2, 9), []
        for i, piece in enumerate(tokens.split(sizes, dim=1)):
            given = {"source": source, "source_documents": documents} if i == 0 else {}
            output = network(piece, cache=cache, **given)
            cache, _ = output.cache, parts.append(output.logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole)
    swapped = cache.reorder(torch.tensor([1, 0]))
    assert swapped.nbytes == cache.nbytes


def test_source_is_seen_and_later_targets_are_not() -> None:
    network = translator()
    source, tokens = ids(1, 6), ids(1, 8, seed=1)
    logits = network(tokens, source=source).logits
    other = tokens.clone()
    other[0, 5] = 3 + (other[0, 5] - 2) % 20
    changed = (network(other, source=source).logits != logits).any(-1)[0]
    assert changed.tolist() == [False] * 5 + [True] * 3
    other_source = source.clone()
    other_source[0, -1] = 3 + (other_source[0, -1] - 2) % 20
    assert bool((network(tokens, source=other_source).logits != logits).any(-1).all())


def test_padding_and_packing_of_pairs_change_nothing() -> None:
    network = translator()
    pairs = [(ids(1, 5), ids(1, 4, seed=1)), (ids(1, 3, seed=2), ids(1, 6, seed=3))]
    alone = [network(target, source=source).logits for source, target in pairs]
    source = torch.cat((pairs[0][0], pairs[1][0]), 1)
    tokens = torch.cat((pairs[0][1], pairs[1][1]), 1)
    documents, source_documents = torch.tensor([[0] * 4 + [1] * 6]), torch.tensor([[0] * 5 + [1] * 3])
    positions, source_positions = torch.tensor([[*range(4), *range(6)]]), torch.tensor([[*range(5), *range(3)]])
    packed = network(tokens, documents, positions, None, source, source_documents, source_positions).logits
    torch.testing.assert_close(packed, torch.cat(alone, 1))
    padded_source = torch.cat((source.new_zeros(1, 2), pairs[1][0]), 1)
    where = torch.tensor([[-1, -1, 0, 0, 0]])
    padded = network(
        pairs[1][1], source=padded_source, source_documents=where, source_positions=torch.tensor([[0, 0, 0, 1, 2]])
    )
    torch.testing.assert_close(padded.logits, alone[1])


def test_separate_vocabularies_and_depths() -> None:
    vocabulary = Vocabulary(23, source_size=31, bos_id=1, eos_id=2, max_len=16)
    network = EncoderDecoder(vocabulary, SMALL, encoder=EncoderParts(n_layers=3))
    assert network.source_embedding.weight.shape[0] == 31
    assert (len(network.encoder.layers), len(network.decoder.layers)) == (3, 2)
    assert not any("cross" in name for name, _ in network.encoder.named_modules())
    assert network(ids(1, 4), source=torch.full((1, 5), 30)).logits.shape == (1, 4, 23)
    shared = EncoderDecoder(WORDS, SMALL)
    assert shared.source_embedding is shared.embedding
    assert sum("embedding" in name for name in shared.state_dict()) == 1


def test_recompute_of_both_stacks_changes_nothing() -> None:
    def gradients(recomputed: bool) -> list[Tensor]:
        torch.manual_seed(0)
        layer = partial(Layer, dropout=0.2, attention=partial(Attention, dropout=0.2))
        network = drawn(EncoderDecoder(WORDS, SMALL, layer)).train()
        if recomputed:
            assert len(recompute_layers(network)) == 4
        network(ids(2, 6), source=ids(2, 5, seed=1)).logits.square().mean().backward()
        return [p.grad for p in network.parameters()]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, again)


def naive(network: Network, prompt: list[int], steps: int) -> list[int]:
    """Greedy decoding without a cache, one row."""
    opening, new = network.opening(prompt), []
    for _ in range(steps):
        tokens = torch.tensor([opening + new])
        if network.reads_apart:
            output = network(tokens, source=torch.tensor([prompt]))
        else:
            output = network(tokens, prefix=torch.arange(tokens.shape[1])[None] < len(prompt))
        new.append(int(output.logits[0, -1].argmax()))
        if new[-1] == 2:
            return new[:-1]
    return new


@pytest.mark.parametrize("architecture", [EncoderDecoder, PrefixLM, DecoderOnly])
def test_decoding_in_batches_is_decoding_one_by_one(architecture: type[Network]) -> None:
    network = drawn(architecture(WORDS, SMALL))
    prompts = [ids(n, seed=n).tolist() for n in (3, 7, 5)]
    expected = [naive(network, prompt, 12) for prompt in prompts]
    found = generate(network, prompts, sampler=sampler_of(temperature=0), max_new_tokens=12)
    assert [each.tokens for each in found] == expected
    beams = beam_search(network, prompts, beams=1, max_new_tokens=12)
    assert [each.tokens for each in beams] == expected
    together = beam_search(network, prompts, beams=3, max_new_tokens=12)
    alone = [beam_search(network, [prompt], beams=3, max_new_tokens=12)[0] for prompt in prompts]
    assert [each.tokens for each in together] == [each.tokens for each in alone]


def test_prefix_tokens_see_each_other_and_no_target() -> None:
    network = drawn(PrefixLM(WORDS, SMALL))
    tokens, prefix = ids(1, 8), torch.arange(8)[None] < 4
    hidden = network(tokens, prefix=prefix).hidden

    def changed(place: int) -> list[bool]:
        other = tokens.clone()
        other[0, place] = 3 + (other[0, place] - 2) % 20
        return (network(other, prefix=prefix).hidden != hidden).any(-1)[0].tolist()

    assert changed(3) == [True] * 8
    assert changed(5) == [False] * 5 + [True] * 3


def test_encoder_sees_both_ways_and_pads() -> None:
    network = drawn(EncoderOnly(WORDS, SMALL, embedding=partial(Embedding, types=2)))
    tokens = ids(1, 6)
    hidden = network(tokens).hidden
    padded = torch.cat((tokens, torch.zeros(1, 2, dtype=torch.long)), 1)
    documents = torch.tensor([[0] * 6 + [-1] * 2])
    torch.testing.assert_close(network(padded, documents).hidden[:, :6], hidden)
    assert not torch.equal(network(tokens, types=torch.ones_like(tokens)).hidden, hidden)


def test_refusals() -> None:
    with pytest.raises(UserError, match="source"):
        translator()(ids(1, 3))
    with pytest.raises(UserError, match="EncoderOnly does not write text"):
        generate(EncoderOnly(WORDS, SMALL), [[3, 4]])
    with pytest.raises(UserError, match="bos"):
        generate(EncoderDecoder(Vocabulary(9, max_len=8), SMALL), [[3, 4]])
    with pytest.raises(SizeError, match=r"layer\.cross_attention"):
        DecoderOnly(WORDS, SMALL, partial(Layer, attention=CrossAttention))


def test_flops_of_source_and_target_are_what_each_goes_through() -> None:
    network = EncoderDecoder(Vocabulary(50, max_len=8), Dims(16, 2, 2, d_ff=32), encoder=EncoderParts(n_layers=3))
    layer, scores = 4 * 16 * 16 + 3 * 16 * 32, 12 * 16 * 8
    cross = (
        2 * 16 * 16
    )  # keys and values of a decoder layer are made of the source, its queries and output of the target
    source = 6 * (3 * layer + 2 * cross) + 3 * scores
    target = 6 * (2 * layer + 2 * cross + 50 * 16) + 2 * 2 * scores
    assert network.flops_by_sequence(8) == (source, target)
    assert network.flops_per_token(8) == source + target
    alone = DecoderOnly(Vocabulary(50, max_len=8), Dims(16, 2, 2, d_ff=32))
    assert alone.flops_by_sequence(8) == (alone.flops_per_token(8),)
