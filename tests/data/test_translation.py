"""Pairs: files that do not fit together, empty and long sides, layouts, random sub-words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_transformer.data.batch import IGNORED, PADDING, PairBatch, PrefixBatch
from lit_transformer.data.bpe_dropout import BPEDropout, Merges, words_of
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.layouts import KeepStart
from lit_transformer.data.numerals import Numerals
from lit_transformer.data.pair_layouts import EncoderDecoderLayout, PrefixLayout
from lit_transformer.data.parallel import ParallelFiles
from lit_transformer.data.subwords import BPE
from lit_transformer.data.tokenizers import ByteLevelBPE, Character, Word
from lit_transformer.data.translation import Sides, TranslationData
from lit_transformer.errors import UserError


def files(folder: Path, sources: list[str], targets: list[str]) -> ParallelFiles:
    (folder / "a.en").write_text("\n".join(sources) + "\n")
    (folder / "a.de").write_text("\n".join(targets) + "\n")
    pair = ["a.en", "a.de"]
    return ParallelFiles({"train": pair, "validation": pair}, data_dir=str(folder))


def data(corpus: Any, **more: Any) -> TranslationData:
    more.setdefault("tokenizer", Word())
    return TranslationData(corpus, batches=TokenBudget(64, multiple=4), **more)


SOURCES = ["a b", "b c d", "a", "d d d d"]
TARGETS = ["x y", "z", "y y y y y", "x z"]


def test_both_counts_are_named_where_files_do_not_fit(tmp_path: Path) -> None:
    corpus = files(tmp_path, ["a"] * 7, ["b"] * 5)
    with pytest.raises(UserError, match=r"a\.en has 7 lines and .*a\.de has 5"):
        data(corpus).prepare_data()
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"a\.en has 5 lines and .*a\.de has 7"):
        data(files(tmp_path / "c", ["a"] * 5, ["b"] * 7)).prepare_data()


def test_an_empty_side_is_an_error_with_its_line_or_is_skipped_and_counted(tmp_path: Path, capsys: Any) -> None:
    corpus = files(tmp_path, SOURCES, ["x y", " ", "y", "x"])
    with pytest.raises(UserError, match=r"line 2: field 'target' is empty; .*data\.sides\.empty: skip"):
        data(corpus).prepare_data()
    skipping = data(corpus, sides=Sides(empty="skip"))
    rows = skipping.rows("train", True)
    assert "1 of 4 pairs have an empty side and are skipped" in capsys.readouterr().err
    assert len(rows) == 3
    assert [skipping.example("train", row).source for row in range(3)] == ["a b", "a", "d d d d"]


@pytest.mark.parametrize("layout", [EncoderDecoderLayout, PrefixLayout])
def test_a_long_pair_is_an_error_with_its_line_or_is_cut_and_counted(tmp_path: Path, capsys: Any, layout: Any) -> None:
    corpus = files(tmp_path, SOURCES, TARGETS)
    with pytest.raises(UserError, match=r"line 3: \d tokens, data\.max_len is 5 \(.*truncation: KeepStart"):
        data(corpus, max_len=5, layout=layout()).prepare_data()
    capsys.readouterr()
    cut = data(corpus, max_len=5, layout=layout(KeepStart()))
    rows = cut.rows("train", True)
    assert "of 4 pairs are cut to 5 tokens" in capsys.readouterr().err
    assert rows.lengths(0).max() <= 5
    batch = rows.batch(np.arange(4))
    assert int(batch.target_count) == rows.target_counts(np.arange(4)).sum() == int(batch.window_tokens)


def test_the_encoder_decoder_layout(tmp_path: Path) -> None:
    module = data(files(tmp_path, SOURCES, TARGETS))
    token = module.tokenizer.backend.token_to_id
    eos = module.tokenizer.eos_id
    batch = module.rows("train", True).batch(np.array([0, 2, PADDING]))
    assert isinstance(batch, PairBatch)
    assert batch.source.tolist() == [[token("a"), token("b"), eos, eos], [token("a"), eos, eos, eos], [eos] * 4]
    assert batch.source_documents is not None and batch.documents is not None
    assert batch.source_documents.tolist() == [[0, 0, 0, -1], [0, 0, -1, -1], [-1] * 4]
    assert batch.tokens[0].tolist()[:3] == [eos, token("x"), token("y")]
    assert batch.targets[0].tolist() == [token("x"), token("y"), eos] + [IGNORED] * 5
    assert batch.documents[0].tolist() == [0] * 3 + [-1] * 5
    assert (batch.targets[2] == IGNORED).all() and int(batch.window_tokens) == 3 + 6
    assert module.example("train", 0).prompt == [token("a"), token("b"), eos]


def test_the_prefix_layout_predicts_the_target_alone(tmp_path: Path) -> None:
    module = data(files(tmp_path, SOURCES, TARGETS), layout=PrefixLayout())
    token = module.tokenizer.backend.token_to_id
    eos = module.tokenizer.eos_id
    batch = module.rows("train", True).batch(np.array([0, PADDING]))
    assert isinstance(batch, PrefixBatch)
    assert batch.tokens[0].tolist()[:5] == [token("a"), token("b"), eos, token("x"), token("y")]
    assert batch.targets[0].tolist()[:5] == [IGNORED, IGNORED, token("x"), token("y"), eos]
    assert batch.prefix.tolist() == [[True] * 3 + [False] * 5, [False] * 8]
    assert (batch.targets[1] == IGNORED).all()
    with pytest.raises(UserError, match=r"data\.sides\.source_tokenizer: PrefixLayout"):
        data(Numerals(), layout=PrefixLayout(), sides=Sides(source_tokenizer=Word()))


def test_each_side_may_have_a_vocabulary_of_its_own(tmp_path: Path) -> None:
    module = data(files(tmp_path, SOURCES, TARGETS), sides=Sides(source_tokenizer=Word()))
    assert module.tokenizer.size == 2 + 3 and module.source_tokenizer.size == 2 + 4
    assert (module.vocabulary.size, module.vocabulary.source_size) == (5, 6)
    shared = data(files(tmp_path, SOURCES, TARGETS))
    assert (shared.vocabulary.size, shared.vocabulary.source_size) == (2 + 7, None)
    with pytest.raises(UserError, match="'<eos>'"):
        data(files(tmp_path, SOURCES, TARGETS), tokenizer=Word(special_tokens=["<unk>"])).prepare_data()


@pytest.mark.parametrize("kind", [BPE(120), ByteLevelBPE(300)])
def test_without_dropout_merges_give_the_tokenizers_own_tokens(kind: Any) -> None:
    module = TranslationData(Numerals(rows=300), kind)
    merges = Merges(module.tokenizer)
    for row in range(50):
        text = module.example("validation", row).source + " ü!"
        draw = np.random.RandomState(0)
        tokens = [token for word in words_of(module.tokenizer, text) for token in merges.cut(word, 0.0, draw)]
        assert tokens == module.tokenizer.encode(text)


def test_bpe_dropout_cuts_anew_in_each_pass_and_says_the_same_text() -> None:
    def module() -> TranslationData:
        return TranslationData(Numerals(rows=300), BPE(120), sampling=BPEDropout(0.3), batches=TokenBudget(512))

    rows, again = module().rows("train", True), module().rows("train", True)
    tokenizer, count = module().tokenizer, 300
    plain = module().rows("train", False)
    cuts = [rows.pair(epoch * count + 7)[1].tolist() for epoch in range(6)]
    assert len({tuple(cut) for cut in cuts}) > 1
    assert {tokenizer.decode(cut) for cut in cuts} == {tokenizer.decode(plain.pair(7)[1].tolist())}
    assert all((again.pair(e * count + 7)[1] == cuts[e]).all() for e in (3, 0))  # whatever was asked for before
    for epoch in (0, 1):
        ids = np.arange(epoch * count, (epoch + 1) * count)
        assert int(rows.batch(ids).target_count) == rows.target_counts(ids).sum()
        lengths = np.array([[len(text) + 1 for text in rows.pair(int(i))] for i in ids])
        assert (rows.lengths(epoch) == lengths).all()
    assert rows.lengths(0).mean() > 1.1 * plain.lengths(0).mean()
    with pytest.raises(UserError, match="BPEDropout needs a BPE tokenizer, not WordLevel"):
        TranslationData(Numerals(rows=300), Word(), sampling=BPEDropout()).rows("train", True)


def test_a_pair_too_long_under_dropout_is_cut_by_the_tokenizer_itself() -> None:
    plain = TranslationData(Numerals(rows=300), BPE(120), batches=TokenBudget(512))
    longest = int(plain.rows("train", False).lengths(0).max())
    module = TranslationData(
        Numerals(rows=300), BPE(120), max_len=longest, sampling=BPEDropout(0.9), batches=TokenBudget(512)
    )
    rows = module.rows("train", True)
    assert rows.lengths(0).max() <= longest
    assert torch.equal(rows.batch(np.arange(300)).ids, torch.arange(300))


def test_characters_are_a_tokenizer_too() -> None:
    module = TranslationData(Numerals(rows=50), Character(), max_len=128)
    assert (
        module.tokenizer.decode(module.rows("train", True).pair(0)[1].tolist()) == module.example("train", 0).reference
    )
