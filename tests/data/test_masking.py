"""Masking: BERT's proportions, nothing but the chosen places touched, a pure function of seed, epoch and sample."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_transformer.data.batch import IGNORED, PADDING
from lit_transformer.data.loaders import EvaluationLoader, TrainLoader
from lit_transformer.data.masked_language_modeling import MaskedBlocks, MaskedLanguageModelingData
from lit_transformer.data.masking import Symbols, TokenMasking, WholeWordMasking
from lit_transformer.data.packing import BlockGrid, FixedGrid, PackedBlocks, ShiftedGrid, seeded
from lit_transformer.data.subwords import BPE, Unigram, WordPiece
from lit_transformer.data.token_file import TokenFile
from lit_transformer.data.tokenizers import ByteLevelBPE, Character, TokenizerKind, Word
from lit_transformer.errors import UserError

from .conftest import ListCorpus, random_texts

SPECIAL = ["<pad>", "<eos>", "<unk>", "<mask>"]
TEXTS = random_texts(30, 60, seed=3, alphabet="abcdefg    \n.")
WORDS = ["unbelievable things happen, unbelievably; 3141592 of them.\nThen another line na\u00efve"] * 3


def blocks(folder: Path, masking: TokenMasking, grid: BlockGrid, size: int = 24, seed: int = 1) -> MaskedBlocks:
    tokenizer = Character(SPECIAL).build(iter(TEXTS))
    TokenFile.write(folder, (d for d in ListCorpus(train=TEXTS).read("train") if d.text), tokenizer)
    return MaskedBlocks(TokenFile.open(folder), size, grid, 0, masking, Symbols.of(tokenizer), seed)


def test_proportions() -> None:
    tokenizer = Character(SPECIAL).build(iter(["abcdefghijklmnopqrstuvwxyz"]))
    symbols = Symbols.of(tokenizer)
    tokens = np.random.RandomState(0).randint(len(SPECIAL), tokenizer.size, size=20000)
    tokens[::100] = tokenizer.eos_id
    real = np.arange(20000) < 15000
    seen, targets = TokenMasking()(tokens, real, symbols, seeded(7))
    chosen = targets != IGNORED
    assert chosen.sum() == round(0.15 * (15000 - 150))
    assert (targets[chosen] == tokens[chosen]).all()
    assert (seen[~chosen] == tokens[~chosen]).all()
    assert not symbols.special[tokens[chosen]].any() and not chosen[15000:].any()
    hidden, same = (seen == symbols.mask_id)[chosen].mean(), (seen == tokens)[chosen].mean()
    assert abs(hidden - 0.8) < 0.03 and abs(same - 0.1 - 0.1 / 26) < 0.02
    swapped = seen[chosen & (seen != tokens) & (seen != symbols.mask_id)]
    assert not symbols.special[swapped].any() and len(set(swapped.tolist())) == 26


@pytest.mark.parametrize("masking", [TokenMasking(), WholeWordMasking(0.3)])
def test_every_token_is_seen_and_only_targets_differ(tmp_path: Path, masking: TokenMasking) -> None:
    masked = blocks(tmp_path, masking, FixedGrid())
    ids = np.arange(len(masked))
    batch, plain = masked.batch(ids), PackedBlocks.batch(masked, ids)
    assert batch.documents is not None
    real = batch.documents != PADDING
    assert int(real.sum()) == len(masked.source.tokens)  # the ends of documents too
    assert plain.tokens[real].tolist() == masked.source.tokens.tolist()
    chosen = batch.targets != IGNORED
    assert (batch.tokens[~chosen] == plain.tokens[~chosen]).all()
    assert (batch.targets[chosen] == plain.tokens[chosen]).all()
    assert chosen.sum(-1).tolist() == masked.target_counts(ids).tolist()
    assert batch.window_tokens == batch.target_count == chosen.sum()
    assert (masked.batch(np.array([PADDING])).targets == IGNORED).all()


def test_a_pure_function_of_seed_epoch_and_sample(tmp_path: Path) -> None:
    masked = blocks(tmp_path, TokenMasking(), FixedGrid())
    count = len(masked)
    alone = masked.batch(np.array([3]))
    among = masked.batch(np.array([5, 3, 0]))
    assert (alone.tokens[0] == among.tokens[1]).all() and (alone.targets[0] == among.targets[1]).all()
    later = masked.batch(np.array([3 + count]))
    other = blocks(tmp_path / ".", TokenMasking(), FixedGrid(), seed=2).batch(np.array([3]))
    assert not (alone.targets == later.targets).all() and not (alone.targets == other.targets).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_a_new_start_change_nothing(tmp_path: Path, workers: int) -> None:
    masked = blocks(tmp_path, WholeWordMasking(), ShiftedGrid(1))
    first = list(TrainLoader(masked, 3, seed=4))
    loader = TrainLoader(masked, 3, seed=4, num_workers=workers)
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    again = TrainLoader(masked, 3, seed=4, num_workers=workers)
    again.load_state_dict({**loader.state_dict(), "samples": 6})
    for wanted, batch in zip(first[2:], again, strict=True):
        assert torch.equal(wanted.tokens, batch.tokens) and torch.equal(wanted.targets, batch.targets)
        assert wanted.window_tokens == batch.window_tokens == batch.target_count
    for one, other in zip(EvaluationLoader(masked, 3), EvaluationLoader(masked, 3), strict=True):
        assert torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize(
    "kind",
    [
        BPE(80, SPECIAL), Unigram(80, SPECIAL), WordPiece(80), ByteLevelBPE(300, SPECIAL),
        Character(SPECIAL), Word(special_tokens=SPECIAL),
    ],
    ids=lambda kind: type(kind).__name__,
)  # fmt: skip
def test_words_are_hidden_whole(kind: TokenizerKind) -> None:
    tokenizer = kind.build(iter(WORDS))
    symbols = Symbols.of(tokenizer)
    tokens = np.array(tokenizer.encode(WORDS[0]))
    numbers = symbols.words(tokens, np.arange(len(tokens)))
    words = [tokenizer.decode(tokens[numbers == number].tolist()).strip() for number in range(numbers[-1] + 1)]
    assert {"unbelievably", "things", "3141592"} <= {word.strip(".,;") for word in words}
    assert "na\u00efve" in words
    for seed in range(5):
        _, targets = WholeWordMasking(0.3)(tokens, np.ones(len(tokens), bool), symbols, seeded(seed))
        chosen = targets != IGNORED
        assert all(len(set(chosen[numbers == number])) == 1 for number in numbers)
        assert 0 < chosen.sum() <= round(0.3 * len(tokens)) or len(set(numbers[chosen])) == 1


def test_mistakes_are_one_line(corpus: ListCorpus) -> None:
    with pytest.raises(UserError, match="share: is 0, must lie between"):
        TokenMasking(share=0)
    with pytest.raises(UserError, match="random: is 0.3, and with hidden 0.8 more than all"):
        TokenMasking(random=0.3)
    with pytest.raises(UserError, match="needs a token that hides others; add '<mask>'"):
        _ = MaskedLanguageModelingData(corpus, Character()).vocabulary
    corpus.streaming = True
    with pytest.raises(UserError, match="corpus.streaming"):
        MaskedLanguageModelingData(corpus, Character(SPECIAL))
