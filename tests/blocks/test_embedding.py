import pytest
import torch
import torch.nn.functional as F
from discovery import close

from lit_transformer.blocks import Embedding, LayerNorm, LinearHead, ScaledEmbedding, TiedHead
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
    from functools import partial

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
