from functools import partial

import pytest
import torch
import torch.nn.functional as F
from discovery import close

from lit_transformer.blocks import Embedding, LayerNorm, LinearHead, MaskedHead, ScaledEmbedding, SoftCapped, TiedHead
from lit_transformer.blocks.loss import ChunkedCrossEntropy
from lit_transformer.dims import Dims, SizeError
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

DIMS = Dims(d_model=16, n_layers=1, n_heads=2, max_len=8)
TOKENS = torch.tensor([[1, 2, 3], [0, 4, 4]])


def drawn(embedding):
    for parameter in embedding.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    return embedding


def test_plain_and_scaled():
    plain, scaled = drawn(Embedding(5, DIMS)), drawn(ScaledEmbedding(5, DIMS))
    close(plain(TOKENS), plain.weight[TOKENS], 0.0)
    close(scaled(TOKENS), plain(TOKENS) * 4, 1e-6)


def test_token_types_are_added():
    embedding, types = drawn(Embedding(5, DIMS, types=2)), torch.tensor([[0, 1, 1], [0, 0, 0]])
    close(embedding(TOKENS, types), embedding.weight[TOKENS] + embedding.types[types], 0.0)
    close(embedding(TOKENS), embedding.weight[TOKENS] + embedding.types[0], 0.0)
    with pytest.raises(UserError, match="embedding.types: is 0"):
        Embedding(5, DIMS)(TOKENS, types)
    with pytest.raises(SizeError, match="embedding.types: is -1"):
        Embedding(5, DIMS, types=-1)


def test_normalised_behind_the_position():
    from lit_transformer.blocks import Learned

    network = DecoderOnly(
        Vocabulary(5), DIMS, position=Learned, embedding=partial(Embedding, norm=LayerNorm), head=LinearHead
    )
    network.embedding.weight.data.mul_(50)
    seen = []
    network.stack.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network(TOKENS)
    x = network.embedding.weight[TOKENS] + network.stack.position.table[:3]
    close(seen[0], F.layer_norm(x, (16,)), 1e-5)


def test_dropout_in_training_only():
    embedding = Embedding(5, DIMS, dropout=0.5)
    x = torch.ones(2, 3, 16)
    assert torch.equal(embedding.eval().drop(x), x)
    assert not torch.equal(embedding.train().drop(x), x)


def test_tied_and_untied():
    tied, untied = DecoderOnly(Vocabulary(5), DIMS), DecoderOnly(Vocabulary(5), DIMS, head=LinearHead)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight
    assert untied.parameter_count() - tied.parameter_count() == 5 * 16
    assert isinstance(tied.head, TiedHead) and "head.weight" in untied.state_dict()


def test_masked_head_is_berts():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=11, hidden_size=16, layer_norm_eps=1e-5)
    theirs = transformers.models.bert.modeling_bert.BertLMPredictionHead(config)
    embedding = drawn(Embedding(11, DIMS))
    ours = drawn(MaskedHead(DIMS, embedding))
    theirs.decoder.weight, theirs.bias = embedding.weight, ours.bias
    theirs.decoder.bias = ours.bias
    theirs.transform.dense.load_state_dict(ours.transform.state_dict())
    theirs.transform.LayerNorm.load_state_dict(ours.norm.state_dict())
    hidden = torch.randn(2, 3, 16)
    close(ours(hidden), theirs(hidden), 1e-5)
    assert ours.weight is embedding.weight


def test_capped_logits_stay_within_bounds_and_reach_the_loss():
    network = DecoderOnly(Vocabulary(3000, max_len=8), DIMS, head=partial(SoftCapped, cap=2.0))
    plain = DecoderOnly(Vocabulary(3000, max_len=8), DIMS)
    for each in (network, plain):
        each.embedding.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    plain.stack.load_state_dict(network.stack.state_dict())
    output, free = network(TOKENS), plain(TOKENS)
    close(output.logits, (free.logits / 2).tanh() * 2, 1e-5)
    assert free.logits.abs().max() > 2 >= output.logits.abs().max()
    targets = torch.tensor([[1, 2, 3], [4, 5, -100]])
    expected = F.cross_entropy(output.logits.flatten(0, 1), targets.flatten(), reduction="sum")
    close(ChunkedCrossEntropy()(output.hidden, output.head, targets), expected, 1e-5)
    with pytest.raises(SizeError, match="head.cap"):
        SoftCapped(DIMS, network.embedding, cap=0)
