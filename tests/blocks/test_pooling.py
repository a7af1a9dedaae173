"""Poolings: padding never counts, wherever it stands; what comes out is what the name says."""

import pytest
import torch

from lit_transformer.blocks.ngram_embedding import NGramEmbedding
from lit_transformer.blocks.pooling import FirstToken, FirstTokenTanh, LabelHead, LastToken, Maximum, Mean, Pooling
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import Normal, initialise

DIMS = Dims(8, 1, 2)
KINDS = [FirstToken, FirstTokenTanh, LastToken, Maximum, Mean]


def made(kind: type[Pooling]) -> Pooling:
    pooling = kind(DIMS)
    initialise(pooling, Normal(0.5), 1, 1)
    return pooling


@pytest.mark.parametrize("kind", KINDS)
def test_padding_behind_a_row_changes_nothing(kind: type[Pooling]) -> None:
    torch.manual_seed(0)
    pooling = made(kind)
    hidden = torch.randn(3, 6, 8)
    documents = torch.zeros(3, 6, dtype=torch.long)
    documents[1, 4:] = documents[2] = -1  # row 2 holds nothing at all
    padded = pooling(hidden, documents)
    torch.testing.assert_close(padded[:1], pooling(hidden[:1]))
    torch.testing.assert_close(padded[1:2], pooling(hidden[1:2, :4]))
    other = hidden.clone()
    other[1, 4:] = other[2] = 1e4
    torch.testing.assert_close(pooling(other, documents), padded)
    assert padded[2].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_padding(kind: type[Pooling]) -> None:
    pooling = made(kind)
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    documents = torch.tensor([[0, 0, 0, -1, -1], [-1] * 5])
    pooling(hidden, documents).sum().backward()
    assert hidden.grad is not None and hidden.grad.isfinite().all()
    assert (hidden.grad[documents < 0] == 0).all() and (hidden.grad[0, :3] != 0).any()


def test_each_takes_what_it_says() -> None:
    hidden = torch.arange(12.0).reshape(1, 3, 4)
    documents = torch.tensor([[0, 0, -1]])
    dims = Dims(4, 1, 1)
    assert FirstToken(dims)(hidden, documents).tolist() == [[0, 1, 2, 3]]
    assert LastToken(dims)(hidden, documents).tolist() == [[4, 5, 6, 7]]
    assert LastToken(dims)(hidden).tolist() == [[8, 9, 10, 11]]
    assert Mean(dims)(hidden, documents).tolist() == [[2, 3, 4, 5]]
    assert Maximum(dims)(-hidden, documents).tolist() == [[0, -1, -2, -3]]


def test_the_poolers_of_bert_have_the_same_parameters() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
    from transformers.models.bert.modeling_bert import BertPooler

    theirs, ours = BertPooler(config), FirstTokenTanh(DIMS)
    ours.load_state_dict(theirs.state_dict())
    hidden = torch.randn(2, 3, 8)
    torch.testing.assert_close(ours(hidden), theirs(hidden))


def test_the_label_head() -> None:
    head = LabelHead(DIMS, 3, FirstToken, dropout=0.5)
    initialise(head, Normal(0.5), 1, 1)
    hidden = torch.randn(2, 4, 8)
    expected = hidden[:, 0] @ head.weight.T
    torch.testing.assert_close(head.eval()(hidden), expected)
    assert not torch.allclose(head.train()(hidden), expected), "dropout is off in training"
    with pytest.raises(SizeError, match="classes: is 1, must be at least 2"):
        LabelHead(DIMS, 1)


def test_ngrams_depend_on_the_tokens_before_and_on_nothing_else() -> None:
    embedding = NGramEmbedding(10, DIMS, buckets=1 << 12, longest=3)
    initialise(embedding, Normal(1.0), 1, 1)
    row = torch.tensor([[3, 4, 5, 6]])
    shifted = torch.tensor([[9, 3, 4, 5, 6]])
    x, y = embedding(row), embedding(shifted)
    torch.testing.assert_close(x[:, 2:], y[:, 3:])  # two tokens before are enough for a triple
    assert not torch.allclose(x[:, :2], y[:, 1:3])
    torch.testing.assert_close(x[:, :1], embedding(row[:, :1]))
    plain = torch.nn.functional.embedding(row, embedding.weight)
    torch.testing.assert_close(x[:, :1], plain[:, :1])
    assert not torch.allclose(x[:, 1:], plain[:, 1:])
