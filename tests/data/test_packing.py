"""Packing neither loses nor leaks: packed blocks hold exactly what the documents do."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_transformer.data.batch import IGNORED, PADDING
from lit_transformer.data.packing import FixedGrid, PackedBlocks, ShiftedGrid, StridedGrid
from lit_transformer.data.token_file import TokenFile
from lit_transformer.data.tokenizers import Character, Tokenizer
from lit_transformer.errors import UserError

from .conftest import ListCorpus, random_texts

WITH_EOS, WITHOUT = ("<eos>",), ()


def token_file(folder: Path, texts: list[str], special: tuple[str, ...]) -> tuple[TokenFile, Tokenizer]:
    corpus = ListCorpus(train=texts)
    tokenizer = Character(special).build(iter(["abcde fg\n"]))
    TokenFile.write(folder, (document for document in corpus.read("train") if document.text), tokenizer)
    return TokenFile.open(folder), tokenizer


def predictions(texts: list[str], tokenizer: Tokenizer) -> Counter[tuple[int, int]]:
    """(token, target) pairs of documents taken one by one."""
    pairs: Counter[tuple[int, int]] = Counter()
    for text in filter(None, texts):
        ids = tokenizer.encode(text)
        if tokenizer.eos_id is not None:
            ids = [tokenizer.eos_id, *ids, tokenizer.eos_id]
        pairs.update(zip(ids[:-1], ids[1:], strict=True))
    return pairs


@pytest.mark.parametrize("special", [WITH_EOS, WITHOUT])
@pytest.mark.parametrize("block_size", [1, 4, 16, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_fixed_grid_predicts_each_token_of_each_document_once(
    tmp_path: Path, special: tuple[str, ...], block_size: int, seed: int
) -> None:
    texts = random_texts(20, 40, seed)
    source, tokenizer = token_file(tmp_path, texts, special)
    blocks = PackedBlocks(source, block_size, FixedGrid())
    batch = blocks.batch(np.arange(len(blocks)))
    valid = batch.targets != IGNORED
    found = Counter(zip(batch.tokens[valid].tolist(), batch.targets[valid].tolist(), strict=True))
    assert found == predictions(texts, tokenizer)
    assert valid.sum() == batch.window_tokens == blocks.targets == source.statistics.targets
    if batch.documents is not None:
        assert ((batch.documents == PADDING) == ~valid).all()


@pytest.mark.parametrize("special", [WITH_EOS, WITHOUT])
@pytest.mark.parametrize("grid", [FixedGrid(), ShiftedGrid(3)])
def test_rows_hold_pieces_of_documents(tmp_path: Path, special: tuple[str, ...], grid: FixedGrid | ShiftedGrid) -> None:
    """Within a document the target is the next token, positions count from 0, and the piece is in that document."""
    texts = random_texts(30, 25, seed=4)
    source, tokenizer = token_file(tmp_path, texts, special)
    blocks = PackedBlocks(source, 16, grid)
    batch = blocks.batch(np.arange(3 * len(blocks)))  # three epochs
    assert batch.documents is not None
    whole = {tokenizer.decode(tokenizer.encode(text)) for text in texts}
    for tokens, targets, positions, documents in zip(
        batch.tokens, batch.targets, batch.positions, batch.documents, strict=True
    ):
        present = [number for number in documents.unique().tolist() if number != PADDING]
        assert present == list(range(len(present)))
        for number in present:
            here = documents == number
            assert positions[here].tolist() == list(range(int(here.sum())))
            assert tokens[here][1:].tolist() == targets[here][:-1].tolist()
            piece = torch.cat([tokens[here], targets[here][-1:]]).tolist()
            text = tokenizer.decode(piece, skip_special_tokens=True)
            assert any(text in document for document in whole)
            if tokenizer.eos_id is not None:
                assert tokenizer.eos_id not in piece[1:-1]


def test_shifted_grid_moves_and_misses_less_than_a_block(tmp_path: Path) -> None:
    source, _ = token_file(tmp_path, random_texts(30, 25), WITH_EOS)
    blocks = PackedBlocks(source, 16, ShiftedGrid(7))
    starts = []
    for epoch in range(20):
        numbers = np.arange(len(blocks))
        begins = blocks.grid.starts(np.full(len(blocks), epoch), numbers, blocks.targets, 16)
        covered = ((begins[:, None] + np.arange(16)) % blocks.targets).ravel()
        assert len(set(covered.tolist())) == len(covered) > blocks.targets - 16
        starts.append(int(begins[0]))
    assert len(set(starts)) > 10


def test_the_start_of_a_document_does_not_follow_its_end(tmp_path: Path) -> None:
    """A shifted grid goes around the ring; with a single document one block may hold its end and its start."""
    source, _ = token_file(tmp_path, ["abcdefg" * 30], WITH_EOS)
    blocks = PackedBlocks(source, 16, ShiftedGrid(1))
    around = 0
    for number in range(len(blocks) * 10):
        batch = blocks.batch(np.array([number]))
        ends = (batch.targets[0, :-1] == 0).nonzero()
        if len(ends):
            around += 1
            assert batch.documents is not None
            assert batch.documents[0].tolist() == [0] * (int(ends[0]) + 1) + [1] * (15 - int(ends[0]))
        else:
            assert batch.documents is None
    assert around


@pytest.mark.parametrize("grid", [FixedGrid(), ShiftedGrid()])
@pytest.mark.parametrize("block_size", [4, 16, 5000])
def test_target_counts_are_those_of_the_batch(tmp_path: Path, grid: FixedGrid | ShiftedGrid, block_size: int) -> None:
    source, _ = token_file(tmp_path, random_texts(30, 25), WITHOUT)
    blocks = PackedBlocks(source, block_size, grid)
    ids = np.append(np.arange(2 * len(blocks)), PADDING)
    assert blocks.target_counts(ids).tolist() == (blocks.batch(ids).targets != IGNORED).sum(1).tolist()


def test_documents_are_left_out_when_no_mask_is_needed(tmp_path: Path) -> None:
    source, _ = token_file(tmp_path, ["abcdefg" * 30, "gfedcba" * 30], WITH_EOS)
    blocks = PackedBlocks(source, 10, FixedGrid())
    alone, crossing = np.array([0, 1, 30]), np.array([0, 21])
    assert blocks.batch(alone).documents is None
    mixed = blocks.batch(crossing).documents
    assert mixed is not None and mixed.max() == 1
    padded = blocks.batch(np.array([0, len(blocks) - 1])).documents
    assert padded is not None and padded.min() == PADDING
    by_row = blocks.batch(np.array([0, 21]))
    assert (by_row.tokens[0] == blocks.batch(np.array([0])).tokens[0]).all()


def test_bytes_leave_out_what_is_not_predicted(tmp_path: Path) -> None:
    tokenizer = Character(()).build(iter(["éab"]))
    TokenFile.write(tmp_path, ListCorpus(train=["éab", "aé", "b"]).read("train"), tokenizer)
    statistics = TokenFile.open(tmp_path).statistics
    assert (statistics.targets, statistics.bytes, statistics.documents, statistics.words) == (3, 2 + 2, 2, 3)
    (tmp_path / "eos").mkdir()
    tokenizer = Character(("<eos>",)).build(iter(["éab"]))
    TokenFile.write(tmp_path / "eos", ListCorpus(train=["éab", "aé", "b"]).read("train"), tokenizer)
    statistics = TokenFile.open(tmp_path / "eos").statistics
    assert (statistics.targets, statistics.bytes, statistics.tokens) == (9, 4 + 3 + 1, 6)


@pytest.mark.parametrize("special", [WITH_EOS, WITHOUT])
@pytest.mark.parametrize(("block_size", "stride"), [(8, 1), (8, 3), (8, 8), (16, 5), (1000, 10), (9, None)])
def test_strided_grid_predicts_each_token_once_behind_a_context(
    tmp_path: Path, special: tuple[str, ...], block_size: int, stride: int | None
) -> None:
    texts = random_texts(10, 40, seed=2)
    source, tokenizer = token_file(tmp_path, texts, special)
    blocks = PackedBlocks(source, block_size, StridedGrid(stride))
    ids = np.arange(len(blocks))
    batch = blocks.batch(ids)
    valid = batch.targets != IGNORED
    found = Counter(zip(batch.tokens[valid].tolist(), batch.targets[valid].tolist(), strict=True))
    assert found == predictions(texts, tokenizer)
    assert valid.sum(-1).tolist() == blocks.target_counts(ids).tolist()
    assert valid.sum() == batch.window_tokens == source.statistics.targets
    assert not valid[1:, : block_size - (stride or block_size // 2)].any()
    padded = blocks.batch(np.array([PADDING]))
    assert padded.window_tokens == 0 and (padded.targets == IGNORED).all()


def test_a_stride_longer_than_a_block_is_an_error(tmp_path: Path) -> None:
    source, _ = token_file(tmp_path, ["abc"], WITH_EOS)
    with pytest.raises(UserError, match="stride: is 9, must be at most data.block_size 8"):
        len(PackedBlocks(source, 8, StridedGrid(9)))
