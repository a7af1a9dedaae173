"""BPE, WordPiece and Unigram: round trips, the same result in every process, special tokens that no text can forge."""

import inspect
import itertools
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from lit_transformer.data import unigram
from lit_transformer.data.subwords import BPE, MARK, Subwords, Unigram, WordPiece
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.errors import UserError

LINES = [
    "The quick brown fox jumps over the lazy dog; the dog sleeps.",
    "Der schnelle braune Fuchs springt \u00fcber den faulen Hund, 12345 mal!",
    "quickly, quicker, quickest: unquick\n\tfox-like  dogs (and 3.14 foxes)\n\n",
    "caf\u00e9 na\u00efve \U0001f642",
]
KINDS = [BPE(150), BPE(120, ["<pad>", "<bos>", "<eos>", "<unk>", "<mask>", "<cls>", "<sep>"], "lower"), Unigram(150)]
PIECES = [WordPiece(150), WordPiece(120, case="lower")]


def build(kind: Subwords) -> Tokenizer:
    return kind.build(iter(LINES * 3))


def texts(count: int = 50) -> list[str]:
    draw = random.Random(1)
    signs = sorted(set("".join(LINES)))
    some = ["".join(draw.choices([*signs, " ", " "], k=draw.randint(0, 60))) for _ in range(count)]
    return [*LINES, *some, "", " ", "  ", " a", "a ", "\n", "<eos>", "<unk> <mask>", "[CLS] fox [SEP]"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__ + kind.case)
def test_seen_characters_come_back_exactly(kind: Subwords) -> None:
    tokenizer = build(kind)
    seen = set("".join(LINES))
    specials = {tokenizer.special_id(role) for role in ("pad", "bos", "eos", "mask", "cls", "sep")}
    for text in texts():
        text = "".join(sign for sign in text if sign in seen)
        text = text.lower() if kind.case == "lower" else text
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not set(ids) & (specials - {None})
    assert tokenizer.decode(tokenizer.encode("dog \u4f60 fox")) == "dog <unk> fox"


@pytest.mark.parametrize("kind", PIECES, ids=lambda kind: kind.case)
def test_word_pieces_come_back_up_to_spacing(kind: Subwords) -> None:
    tokenizer = build(kind)
    for text in texts():
        ids = tokenizer.encode(text)
        if tokenizer.special_id("unk") not in ids:
            assert tokenizer.encode(tokenizer.decode(ids)) == ids
        assert not set(ids) & {tokenizer.cls_id, tokenizer.sep_id, tokenizer.special_id("mask")}
    plain = "the quick dog sleeps over quicker foxes"
    assert tokenizer.decode(tokenizer.encode(plain)) == plain
    names = [tokenizer.backend.id_to_token(token) for token in tokenizer.encode("unquick")]
    assert len(names) > 1 and all(name.startswith("##") for name in names[1:])


@pytest.mark.parametrize("kind", [*KINDS, *PIECES], ids=lambda kind: type(kind).__name__ + kind.case)
def test_storing_changes_nothing(kind: Subwords) -> None:
    tokenizer = build(kind)
    assert tokenizer.size <= kind.vocab_size
    again = Tokenizer.from_json(tokenizer.to_json())
    assert (again.fingerprint, again.special_tokens) == (tokenizer.fingerprint, tokenizer.special_tokens)
    assert [again.encode(text) for text in texts()] == [tokenizer.encode(text) for text in texts()]
    assert [tokenizer.backend.token_to_id(name) for name in kind.special_tokens] == list(
        range(len(kind.special_tokens))
    )


def test_every_process_trains_the_same() -> None:
    """The library's hash tables have another order in each process, and its threads sum in another."""
    program = (
        "import tests.data.test_subwords as t\nprint(*[t.build(kind).fingerprint for kind in [*t.KINDS, *t.PIECES]])"
    )
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout.split() == [build(kind).fingerprint for kind in [*KINDS, *PIECES]]


def test_merges_are_the_commonest_pairs() -> None:
    tokenizer = BPE(10, ["<unk>"]).build(iter(["ab ab ab cab"]))
    names = [tokenizer.backend.id_to_token(token) for token in range(tokenizer.size)]
    assert names == ["<unk>", "a", "b", "c", MARK, "ab", MARK + "ab", "cab", MARK + "cab"]


def test_expectations_of_the_unigram_model_by_listing_all_cuts() -> None:
    pieces = ["a", "b", "ab", "ba", "aba"]
    log_p = np.log([0.3, 0.2, 0.25, 0.15, 0.1])
    words, weights = ["abab", "aba", "b"], np.array([3.0, 2.0, 5.0])
    wanted = Counter[str]()
    for word, weight in zip(words, weights, strict=True):
        cuts = []
        for size in range(1, len(word) + 1):
            for places in itertools.combinations(range(1, len(word)), size - 1):
                ends = [0, *places, len(word)]
                cut = [word[a:b] for a, b in itertools.pairwise(ends)]
                if all(part in pieces for part in cut):
                    cuts.append((np.prod([np.exp(log_p[pieces.index(part)]) for part in cut]), cut))
        total = sum(p for p, _ in cuts)
        for p, cut in cuts:
            for part in cut:
                wanted[part] += weight * p / total
    lattice = unigram._Lattice(words, pieces)
    assert np.allclose(lattice.expected(log_p, weights), [wanted[piece] for piece in pieces])
    best = unigram._Lattice(pieces, pieces, proper=True).best(log_p)
    assert np.allclose(np.exp(best[2:]), [0.06, 0.06, max(0.25 * 0.3, 0.3 * 0.15)])


def test_unigram_needs_few_tokens() -> None:
    """A bad search for pieces shows at once: it needs more tokens than BPE."""
    text = inspect.getsource(random)
    counts = [len(kind.build(iter([text])).encode(text)) for kind in (BPE(500), Unigram(500))]
    assert counts[1] < counts[0], counts


def test_roles_and_fingerprints() -> None:
    bert = build(PIECES[0])
    assert (bert.cls_id, bert.sep_id) == (2, 3) == (bert.start_id, bert.eos_id)
    own = build(KINDS[1])
    assert (own.cls_id, own.sep_id, own.start_id, own.eos_id) == (5, 6, 1, 2)
    assert own.vocabulary().mask_id == 4
    without = build(KINDS[0])
    assert (without.cls_id, without.sep_id) == (without.eos_id, without.eos_id)
    assert len({bert.fingerprint, own.fingerprint, without.fingerprint}) == 3


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UserError, match="BPE needs '<unk>'"):
        BPE(special_tokens=["<eos>"])
    with pytest.raises(UserError, match=r"WordPiece needs '\[UNK\]'"):
        WordPiece(special_tokens=["<unk>"])
    with pytest.raises(UserError, match="case: is 'upper'"):
        Unigram(case="upper")  # type: ignore[arg-type]
    for kind in (BPE(20), Unigram(20), WordPiece(20)):
        with pytest.raises(UserError, match="vocab_size: is 20, must be at least"):
            build(kind)
