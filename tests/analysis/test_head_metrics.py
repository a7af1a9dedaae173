"""Hand-built heads score 1 on their own metric, and every metric is what its definition says."""

import math

import pytest
import torch
from torch import Tensor

from lit_transformer.analysis.head_metrics import STANDARD, Offset, Pairs, Separators, head_metrics
from lit_transformer.analysis.record import AttentionLayer, AttentionRecord, record_attention
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly, EncoderDecoder
from lit_transformer.vocabulary import Vocabulary

REPEATED = torch.tensor([[5, 7, 9, 4, 6, 5, 7, 9, 4, 6], [3, 8, 4, 9, 5, 3, 8, 4, 9, 5]])


class Built(AttentionLayer):
    """A layer whose weights are given."""

    def __init__(self, given: Tensor, cross: bool = False) -> None:
        super().__init__("stack.layers.0.attention", "stack", 0, cross)
        self.given = given

    heads = property(lambda self: self.given.shape[1])
    shape = property(lambda self: tuple(self.given.shape[2:]))

    def weights(self, heads: slice = slice(None), rows: slice = slice(None)) -> Tensor:
        return self.given[:, heads, rows]


def one_hot(place: Tensor, width: int = 10) -> Tensor:
    """(B, T) places to look at -> weights (B, 1, T, S)."""
    return torch.nn.functional.one_hot(place, width).float().unsqueeze(1)


INDEX = torch.arange(10).expand(2, -1)
HEADS = {
    "previous": one_hot((INDEX - 1).clamp(min=0)),
    "next": one_hot((INDEX + 1).clamp(max=9)),
    "self": one_hot(INDEX),
    "first": one_hot(torch.zeros_like(INDEX)),
    "duplicate": one_hot((INDEX - 5).clamp(min=0)),
    "induction": one_hot((INDEX - 4).clamp(min=0)),
    "evenness": torch.ones(10, 10).tril().div(torch.arange(1, 11).unsqueeze(1)).expand(2, 1, -1, -1),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [256, 3])
def test_a_head_built_for_it_scores_one(name: str, size: int) -> None:
    causal = [key for key in HEADS if key != "next"]  # heads of one layer share a mask
    others = [HEADS[key] for key in (causal if name != "next" else HEADS) if key != name]
    record = AttentionRecord([Built(torch.cat([HEADS[name], *others], 1))])
    table = head_metrics(record, REPEATED, size=size)
    assert table[name][0] == pytest.approx(1.0)
    assert table[name][1:].max() < 0.9
    assert table.best(name) == ("stack.layers.0.attention", 0, pytest.approx(1.0))
    assert name in table.text()


def test_numbers_with_units() -> None:
    table = head_metrics(AttentionRecord([Built(HEADS["evenness"])]), REPEATED)
    assert table["entropy"][0] == pytest.approx(sum(math.log(n) for n in range(1, 11)) / 10)
    assert table["distance"][0] == pytest.approx(sum((n - 1) / 2 for n in range(1, 11)) / 10)
    table = head_metrics(AttentionRecord([Built(HEADS["previous"])]), REPEATED, metrics=[Separators({5})])
    assert table["separators"][0] == pytest.approx(3 / 20 + 1 / 20)  # behind each 5, and a first token of its own


def test_partners_and_offsets() -> None:
    partners = one_hot((INDEX - 2).clamp(min=0))[:, 0].bool()
    partners[:, :2] = False
    record = AttentionRecord([Built(one_hot((INDEX - 2).clamp(min=0)))])
    table = head_metrics(record, REPEATED, metrics=[Pairs(partners), Offset(-2), Offset(3)])
    assert table.values.tolist() == [[1.0, 1.0, 0.0]]
    assert table.columns == ["pairs", "offset-2", "offset+3"]


def test_padding_does_not_count() -> None:
    network = DecoderOnly(Vocabulary(12, max_len=16), Dims(16, 2, 2)).eval()
    short = REPEATED[:1, :6]
    padded = torch.cat((short, torch.zeros(1, 4, dtype=torch.long)), 1)
    with record_attention(network) as alone:
        network(short)
    with record_attention(network) as filled:
        network(padded, documents=torch.tensor([[0] * 6 + [-1] * 4]))
    torch.testing.assert_close(head_metrics(filled, padded).values, head_metrics(alone, short).values,
                               equal_nan=True, rtol=1e-5, atol=1e-6)  # fmt: skip


def test_cross_attention_has_no_metric_of_one_text() -> None:
    network = EncoderDecoder(Vocabulary(12, bos_id=1, max_len=16), Dims(16, 1, 2)).eval()
    with record_attention(network) as record:
        network(REPEATED, source=REPEATED[:, :7])
    table = head_metrics(record, REPEATED, REPEATED[:, :7])
    assert len(table.rows) == 6
    cross = [path == "decoder.layers.0.cross_attention" for path, _ in table.rows]
    own = [metric.own for metric in STANDARD]
    assert table.values.isnan()[torch.tensor(cross)].all(0).tolist() == own
    assert not table.values[~torch.tensor(cross)].isnan().any()
