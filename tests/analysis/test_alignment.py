"""Alignment: a head that looks at the right words is right everywhere, one that looks aside nowhere."""

from types import SimpleNamespace

import pytest
import torch

from lit_transformer.analysis.alignment import aligned_heads, alignment_accuracy, token_partners
from lit_transformer.data.numerals import numeral
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary


def test_partners_are_the_tokens_of_the_aligned_words():
    number = numeral(21)
    assert (number.english, number.german) == ("twenty-one", "einundzwanzig")
    partners = token_partners([(0, 3), (3, 6), (6, 13)], [(0, 6), (6, 7), (7, 10)], number.alignment)
    assert partners.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    right = torch.tensor([[0.1, 0.1, 0.8], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    half = torch.tensor([[0.1, 0.1, 0.8], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    wrong = right.flip(-1)
    found = alignment_accuracy(torch.stack([right, half, wrong]), partners)
    assert found.tolist() == [1.0, 0.5, 0.0]  # what has no partner does not count


def test_a_network_without_cross_attention_is_refused():
    network = DecoderOnly(Vocabulary(11, max_len=8, eos_id=1), Dims(d_model=8, n_layers=1, n_heads=2, max_len=8))
    tokenizer = SimpleNamespace(encode=lambda text: SimpleNamespace(ids=[3], offsets=[(0, len(text))]))
    with pytest.raises(UserError, match="has no cross-attention"):
        aligned_heads(network, SimpleNamespace(backend=tokenizer), [("one", "ein", [((0, 3), (0, 3))])])
