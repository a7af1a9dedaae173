"""Denoising: what is read and what is written hold the text together; lengths are known before a token is read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_transformer.data.batch import IGNORED, PADDING, PairBatch, PrefixBatch
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.denoising import SENTINEL, DenoisingData, DenoisingRows
from lit_transformer.data.objectives import Objective, PrefixSplit, SpanCorruption
from lit_transformer.data.packing import FixedGrid, PackedBlocks, ShiftedGrid, seeded
from lit_transformer.data.pair_layouts import EncoderDecoderLayout, PairLayout, PrefixLayout
from lit_transformer.data.prefix_language_modeling import PrefixBlocks
from lit_transformer.data.token_file import TokenFile
from lit_transformer.data.tokenizers import Character
from lit_transformer.errors import UserError

from .conftest import ListCorpus, random_texts

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
TEXTS = [*random_texts(20, 70, seed=5), "", "a", "ab"]


def rows(folder: Path, objective: Objective, layout: PairLayout, block: int = 16, seed: int = 1) -> DenoisingRows:
    tokenizer = Character(SPECIAL).build(iter(TEXTS))
    TokenFile.write(folder, (d for d in ListCorpus(train=TEXTS).read("train") if d.text), tokenizer)
    names = [SENTINEL.format(i) for i in range(objective.sentinels)]
    larger = tokenizer.with_special_tokens(names)
    return DenoisingRows(TokenFile.open(folder), block, objective, layout, larger, TokenBudget(256), seed)


@pytest.mark.parametrize("size", [2, 3, 5, 16, 100])
@pytest.mark.parametrize(("density", "span"), [(0.15, 3.0), (0.5, 1.0), (0.9, 5.0)])
def test_spans_and_the_rest_are_the_text(size: int, density: float, span: float) -> None:
    objective = SpanCorruption(density, span)
    objective.check(size)
    tokens, sentinels = np.arange(1000, 1000 + size), np.arange(100)
    for seed in range(20):
        read, written = objective(tokens, 0.5, sentinels, seeded(seed))
        assert [len(read), len(written)] == objective.lengths(np.array([size]), np.array([0.5]))[0].tolist()
        spans = np.split(written, np.flatnonzero(written < 100))[1:]
        whole = [part for token in read for part in (spans[token][1:] if token < 100 else [token])]
        assert whole == tokens.tolist()
        assert [int(part[0]) for part in spans] == [token for token in read if token < 100] == list(range(len(spans)))
        assert all(len(part) > 1 for part in spans)
    missing = len(written) - len(spans)
    assert missing == max(1, min(size - 1, round(density * size)))


def test_all_prefixes_come_about() -> None:
    objective, tokens = PrefixSplit(), np.arange(4)
    pairs = [objective(tokens, chance, tokens[:0], seeded(0)) for chance in (0.0, 0.34, 0.67, 0.9999)]
    assert [len(read) for read, _ in pairs] == [1, 2, 3, 3]
    assert all(np.concatenate(pair).tolist() == tokens.tolist() for pair in pairs)


@pytest.mark.parametrize("objective", [SpanCorruption(), PrefixSplit()])
@pytest.mark.parametrize("layout", [EncoderDecoderLayout(), PrefixLayout()])
def test_rows_are_what_they_are_said_to_be(tmp_path: Path, objective: Objective, layout: PairLayout) -> None:
    found = rows(tmp_path, objective, layout)
    pieces = [found.source.tokens[a : a + n].tolist() for a, n in zip(found.starts, found.sizes, strict=True)]
    wanted = [found.tokenizer.encode(text) for text in TEXTS]
    assert pieces == [ids[a : a + 16] for ids in wanted for a in range(0, len(ids), 16) if len(ids) - a > 1]
    for epoch in (0, 3):
        ids = np.append(np.arange(len(found)) + epoch * len(found), PADDING)
        batch = found.batch(ids)
        said = found.lengths(epoch)
        real = torch.full_like(batch.tokens, 0) if batch.documents is None else batch.documents
        assert ((real >= 0).sum(-1)[:-1] == torch.from_numpy(said[:, -1])).all() and (real[-1] < 0).all()
        counts = (batch.targets != IGNORED).sum(-1)
        assert counts.tolist() == found.target_counts(ids).tolist()
        assert batch.window_tokens == counts.sum()
        if isinstance(batch, PairBatch):
            assert batch.source_documents is not None
            assert ((batch.source_documents >= 0).sum(-1)[:-1] == torch.from_numpy(said[:, 0])).all()
            begins = batch.tokens[:, 0][:-1]
            assert (begins == found.tokenizer.start_id).all()
    alone = found.batch(np.array([5]))
    assert alone.targets[0, :2].tolist() == found.batch(np.array([9, 5, 1])).targets[1, :2].tolist()
    other = rows(tmp_path, objective, layout, seed=2)
    assert any(not np.array_equal(found.pair(n)[0], other.pair(n)[0]) for n in range(len(found)))


@pytest.mark.parametrize("grid", [FixedGrid(), ShiftedGrid(2)])
def test_prefixes_of_packed_documents(tmp_path: Path, grid: FixedGrid | ShiftedGrid) -> None:
    tokenizer = Character(SPECIAL).build(iter(TEXTS))
    TokenFile.write(tmp_path, (d for d in ListCorpus(train=TEXTS).read("train") if d.text), tokenizer)
    blocks = PrefixBlocks(TokenFile.open(tmp_path), 24, grid, 0, seed=3)
    ids = np.append(np.arange(2 * len(blocks)), PADDING)
    batch, plain = blocks.batch(ids), PackedBlocks.batch(blocks, ids)
    assert isinstance(batch, PrefixBatch) and batch.documents is not None
    assert torch.equal(batch.tokens, plain.tokens)
    assert (batch.targets != IGNORED).sum(-1).tolist() == blocks.target_counts(ids).tolist()
    lengths = set()
    for row in range(len(ids)):
        for number in range(int(batch.documents[row].max()) + 1):
            here = batch.documents[row] == number
            prefix, targets, before = batch.prefix[row][here], batch.targets[row][here], plain.targets[row][here]
            size = int(prefix.sum())
            lengths.add((size, int(here.sum())))
            assert size >= 1 and prefix[:size].all()
            assert (targets[: size - 1] == IGNORED).all()
            assert targets[size - 1 :].tolist() == before[size - 1 :].tolist()
        assert not batch.prefix[row][batch.documents[row] < 0].any()
    assert len(lengths) > 20
    assert torch.equal(blocks.batch(ids[4:5]).prefix[0], batch.prefix[4])
    assert blocks.batch(ids).window_tokens == (batch.targets != IGNORED).sum()


def test_sentinels_are_at_the_end_of_the_vocabulary(corpus: ListCorpus) -> None:
    data = DenoisingData(corpus, Character(["<eos>"]), SpanCorruption(sentinels=7), block_size=20)
    plain = Character(["<eos>"]).build(document.text for document in corpus.documents("train"))
    assert data.tokenizer.size == plain.size + 7 == data.vocabulary.size
    assert data.rows("train", True).sentinels.tolist() == list(range(plain.size, plain.size + 7))
    assert data.tokenizer.decode([plain.size]) == "<extra_id_0>"
    longest = data.rows("train", True).lengths(0).max()
    assert longest <= (data.vocabulary.max_len or 0)


def test_mistakes_are_one_line(corpus: ListCorpus) -> None:
    with pytest.raises(UserError, match="density: is 0, must lie between"):
        SpanCorruption(0)
    with pytest.raises(UserError, match="sentinels: is 3, and 25 spans of a piece of data.block_size 500"):
        DenoisingData(corpus, Character(), SpanCorruption(sentinels=3), block_size=500)
    with pytest.raises(UserError, match="denoising needs '<eos>'"):
        _ = DenoisingData(corpus, Character([])).vocabulary
    with pytest.raises(UserError, match="block_size: is 1"):
        DenoisingData(corpus, Character(), block_size=1)
    short = ListCorpus(train=["a", "b"], validation=["a"])
    with pytest.raises(UserError, match="validation split holds no text of two tokens"):
        DenoisingData(short, Character()).rows("validation", False)
