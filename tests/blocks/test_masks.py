"""Masks against their definitions, written out for one pair at a time."""

import pytest
import torch
from discovery import MASKS
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from lit_transformer.blocks import (
    And,
    BigBird,
    BlockSparse,
    Causal,
    Dilated,
    Documents,
    EagerKernel,
    FixedSparse,
    Full,
    GlobalTokens,
    Mask,
    Or,
    PrefixCausal,
    Sinks,
    Sites,
    SlidingWindow,
    Visibility,
)
from lit_transformer.blocks.masks import plain_tiles, require_causal, require_visible, tiles
from lit_transformer.blocks.masks.tiles import pairwise
from lit_transformer.dims import SizeError

DEFINITIONS = [
    (Full(), lambda i, j: True),
    (Causal(), lambda i, j: j <= i),
    (PrefixCausal(), lambda i, j: j <= i or j < 5),
    (SlidingWindow(4), lambda i, j: -4 < i - j < 4),
    (Dilated(3), lambda i, j: (i - j) % 3 == 0),
    (GlobalTokens(2), lambda i, j: i in (0, 1) or j in (0, 1)),
    (Sinks(3), lambda i, j: j < 3),
    (BlockSparse(4, 1, 0), lambda i, j: abs(i // 4 - j // 4) <= 1),
    (BlockSparse(3, 0, 1), lambda i, j: i // 3 == j // 3 or i < 3 or j < 3),
    (FixedSparse(5, 2), lambda i, j: i // 5 == j // 5 or j % 5 in (3, 4)),
    (Causal() & SlidingWindow(3) | Sinks(1), lambda i, j: (j <= i and i - j < 3) or j < 1),
    (Causal() & (Dilated(4) | SlidingWindow(4)), lambda i, j: j <= i and ((i - j) % 4 == 0 or i - j < 4)),
]


def row(length: int, start: int = 0) -> Sites:
    index = torch.arange(start, start + length).unsqueeze(0)
    return Sites(index, prefix=index < 5)


def dense(mask: Mask, q: Sites, k: Sites) -> torch.Tensor:
    return mask.allowed(q.queries(), k.keys())


@pytest.mark.parametrize(("mask", "definition"), DEFINITIONS, ids=lambda x: repr(x) if isinstance(x, Mask) else "")
def test_definition(mask, definition):
    expected = torch.tensor([[definition(i, j) for j in range(21)] for i in range(7, 20)])
    assert torch.equal(dense(mask, row(13, 7), row(21))[0], expected)


def test_documents():
    documents = torch.tensor([[-1, -1, 0, 0, 0, 1, 1], [3, 3, 3, 3, 4, -1, -1]])
    sites = Sites(torch.arange(7).unsqueeze(0), documents)
    for b, found in enumerate(dense(Documents(), sites, sites)):
        numbers = documents[b].tolist()
        assert found.tolist() == [[i == j and j >= 0 for j in numbers] for i in numbers]
    assert sites.with_start().place.tolist() == [[0, 1, 0, 1, 2, 0, 1], [0, 1, 2, 3, 0, 0, 1]]
    gap = Sites(torch.arange(6).unsqueeze(0), torch.tensor([[0, 0, -1, -1, 0, 0]])).with_start()
    assert Visibility(Causal() & Sinks(1), gap, gap).dense[0, 5].tolist() == [True] + [False] * 5


def test_first_tokens_are_those_of_the_document():
    sites = Sites(torch.arange(8).unsqueeze(0), torch.tensor([[-1, 0, 0, 0, 1, 1, 1, 1]])).with_start()
    seen = Visibility(Sinks(1), sites, sites).dense[0]
    assert seen.nonzero().tolist() == [[1, 1], [2, 1], [3, 1], [4, 4], [5, 4], [6, 4], [7, 4]]


def test_bigbird_draws_as_many_blocks_as_it_says():
    mask = BigBird(block=1, neighbours=0, first=0, random=3, seed=5)
    seen = dense(mask, row(64), row(64))[0]
    assert torch.equal(seen, seen.T)
    assert (seen.tril(-1).sum(-1)[3:] == 3).all()
    assert not torch.equal(seen, dense(BigBird(1, 0, 0, 3, seed=6), row(64), row(64))[0])
    assert torch.equal(seen[:40, :40], dense(mask, row(40), row(40))[0]), "a longer text must not change the draw"
    drawn = torch.stack([dense(BigBird(1, 0, 0, 1, seed=s), row(50), row(50))[0, 49, :49] for s in range(400)])
    assert drawn.float().mean(0).max() < 5 / 49, "every earlier block is as likely"


def test_masks_are_values():
    assert Causal() & SlidingWindow(8) == And([Causal(), SlidingWindow(8)])
    assert hash(Causal() | Sinks(2)) == hash(Or([Causal(), Sinks(2)]))
    assert SlidingWindow(8) != SlidingWindow(9)
    assert (Causal() & SlidingWindow(8) & Sinks(2)).masks == [Causal(), SlidingWindow(8), Sinks(2)]
    assert repr(BlockSparse(8)) == "BlockSparse(block=8, neighbours=1, first=1)"


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("packed", [False, True])
def test_tiles_never_lose_a_pair(name, packed):
    torch.manual_seed(0)
    for mask in (MASKS[name], Causal() & MASKS[name], MASKS[name] | SlidingWindow(3)):
        for rows, columns, q_len, k_len in ((4, 4, 37, 37), (8, 4, 5, 29), (16, 8, 40, 40), (1, 3, 1, 17)):
            k = Sites(torch.arange(k_len).unsqueeze(0), prefix=torch.rand(2, k_len) < 0.2)
            if packed:
                documents = torch.sort(torch.randint(-1, 4, (2, k_len))).values
                k = Sites(k.index, documents, k.prefix).with_start()
                mask = mask & Documents()
            q = k.map(lambda field, q_len=q_len: field[..., -q_len:])
            quick = tiles(mask, q, k, rows, columns)
            some, every = pairwise(mask, q, k, rows, columns)
            assert quick.some.shape[-2:] == some.shape[-2:]
            assert (quick.some | ~some).all(), "a visible pair would be skipped"
            assert (every | ~quick.every).all(), "a hidden pair would be shown"


@pytest.mark.parametrize("mask", [
    Causal(), Causal() & SlidingWindow(16), SlidingWindow(16) | GlobalTokens(4), BigBird(8, 1, 1, 2),
    Causal() & (SlidingWindow(12) | Sinks(4)), Dilated(16) | SlidingWindow(16), FixedSparse(8, 2),
    Causal() & BigBird(8),
], ids=repr)  # fmt: skip
def test_tiles_are_exact_where_it_matters(mask):
    quick = plain_tiles(mask, 0, 64, 64, 8, 8)
    sites = Sites(torch.arange(64).unsqueeze(0))
    some, every = pairwise(mask, sites, sites, 8, 8)
    assert torch.equal(quick.some, some)
    assert plain_tiles(mask, 0, 64, 64, 8, 8) is quick
    assert (quick.every.sum() == every.sum()) or isinstance(mask, And | Or)


class EveryPrime(Mask):
    """A mask of the user's own, which says nothing but its predicate."""

    def allowed(self, q: Sites, k: Sites) -> torch.Tensor:
        distance = q.index - k.index
        return (distance == 2) | (distance == 3) | (distance == 5) | (distance == 7)


def test_a_mask_of_ones_own_needs_its_predicate_only():
    quick = plain_tiles(Causal() & EveryPrime(), 0, 30, 30, 4, 4)
    sites = Sites(torch.arange(30).unsqueeze(0))
    assert torch.equal(quick.some, pairwise(EveryPrime(), sites, sites, 4, 4)[0])


@pytest.mark.parametrize("name", MASKS)
def test_shortcuts_tell_the_truth(name):
    for mask in (MASKS[name], Causal() & MASKS[name], MASKS[name] | Causal()):
        for k_len in (1, 2, 3, 5, 8, 9, 17):
            for q_len in {1, k_len // 2 or 1, k_len}:
                start = k_len - q_len
                q, k = (Sites(torch.arange(a, k_len).unsqueeze(0)) for a in (start, 0))
                if mask.hides_nothing(start, q_len, k_len):
                    assert dense(mask, q, k).all()
            if mask.is_causal(k_len):
                assert torch.equal(dense(mask, k, k)[0], torch.ones(k_len, k_len, dtype=torch.bool).tril())
    assert (Causal() & SlidingWindow(9)).is_causal(9) and not (Causal() & SlidingWindow(8)).is_causal(9)


def flex_case(mask: Mask, packed: bool) -> Visibility:
    documents = torch.tensor([[0] * 9 + [1] * 7, [-1] * 4 + [0] * 12]) if packed else None
    k = Sites(torch.arange(16).unsqueeze(0), documents, torch.arange(16).unsqueeze(0) < 3).with_start()
    return Visibility(mask, k.map(lambda field: field[..., 6:]), k)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("packed", [False, True])
def test_single_indices_see_the_same(name, packed):
    visible = flex_case(MASKS[name], packed)
    found = create_mask(visible.mask_mod, 2, 1, 10, 16, device="cpu")
    assert torch.equal(found[:, 0], visible.dense.expand(2, -1, -1))


def test_flex_attention_takes_the_predicate():
    torch.manual_seed(0)
    visible = flex_case(Causal() & (BigBird(4, 0, 1, 1) | SlidingWindow(3)), True)
    shown = create_block_mask(visible.mask_mod, 2, 1, 10, 16, device="cpu", BLOCK_SIZE=4)
    queries, keys, values = (torch.randn(2, 2, n, 4, dtype=torch.float64) for n in (10, 16, 16))
    found = flex_attention(queries, keys, values, block_mask=shown).nan_to_num()
    torch.testing.assert_close(found, EagerKernel()(queries, keys, values, visible))


@pytest.mark.parametrize(("build", "key"), [
    (lambda: SlidingWindow(0), "mask.window"), (lambda: Dilated(0), "mask.dilation"), (lambda: Sinks(0), "mask.count"),
    (lambda: GlobalTokens(-1), "mask.count"), (lambda: BlockSparse(0), "mask.block"), (lambda: And([]), "mask.masks"),
    (lambda: BigBird(random=0), "mask.random"), (lambda: BlockSparse(neighbours=-1), "mask.neighbours"),
    (lambda: FixedSparse(4, 5), "mask.summary"), (lambda: Or([]), "mask.masks"),
])  # fmt: skip
def test_impossible_sizes_are_refused_by_key(build, key):
    with pytest.raises(SizeError) as caught:
        build()
    assert caught.value.key == key and "\n" not in str(caught.value)


class Nothing(Mask):
    def allowed(self, q: Sites, k: Sites) -> torch.Tensor:
        return (q.index < 0) & (k.index < 0)


def test_a_mask_that_hides_everything_is_refused():
    with pytest.raises(SizeError, match="mask: .*hides every token"):
        require_visible(Causal() & Nothing(), 32)
    with pytest.raises(SizeError, match="lets tokens see later ones"):
        require_causal(SlidingWindow(4), 32)
    require_causal(Causal() & SlidingWindow(4), 32)
    require_causal(PrefixCausal(), None)
