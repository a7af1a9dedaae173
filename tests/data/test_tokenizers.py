"""Tokenizers: exact round trips, the same after storing, special tokens that no text can forge."""

import random
from pathlib import Path

import pytest

from lit_transformer.data import tokenizer as tokenizer_module
from lit_transformer.data.tokenizers import (
    ByteLevelBPE,
    Bytes,
    Character,
    Tokenizer,
    TokenizerFile,
    TokenizerKind,
    Word,
)
from lit_transformer.errors import UserError

SAMPLE = (
    "def f(x):\n    return x + 1\n\n\nThe quick brown fox, the quick brown dog.\n\x0c\n\tcaf\u00e9 \U0001f642 1234567\n"
    * 5
)
STRANGE = [
    "",
    "\n",
    "\r\n \r",
    "\x00",
    "a\u0301",
    "\ufeff",
    "\u202e",
    "<eos>",
    "<unk>",
    "<pad><eos>",
    " " * 50,
    "\u4f60\u597d",
]
KINDS: list[TokenizerKind] = [
    ByteLevelBPE(400),
    ByteLevelBPE(300, ["<pad>", "<bos>", "<eos>"]),
    Bytes(),
    Character(),
    Word(),
]


def build(kind: TokenizerKind) -> Tokenizer:
    return kind.build(iter([SAMPLE]))


def random_text(seed: int, length: int) -> str:
    draw = random.Random(seed)
    common = "ab \n\t.,(1_" * 20
    return "".join(draw.choice(common) if draw.random() < 0.9 else chr(draw.randrange(0xD7FF)) for _ in range(length))


@pytest.mark.parametrize("kind", [ByteLevelBPE(400), Bytes()])
def test_bytes_represent_every_text(kind: TokenizerKind) -> None:
    tokenizer = build(kind)
    for text in [SAMPLE, *STRANGE, *(random_text(seed, 300) for seed in range(20))]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert sum(map(tokenizer.byte_length, ids)) == len(text.encode())
        assert not set(ids) & {tokenizer.eos_id}


@pytest.mark.parametrize("kind", KINDS)
def test_storing_changes_nothing(kind: TokenizerKind) -> None:
    tokenizer = build(kind)
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.fingerprint == tokenizer.fingerprint == build(kind).fingerprint
    assert again.special_tokens == tokenizer.special_tokens
    for text in [SAMPLE, *STRANGE]:
        assert again.encode(text) == tokenizer.encode(text)
    assert again.vocabulary(7) == tokenizer.vocabulary(7)
    assert max(tokenizer.encode(SAMPLE)) < tokenizer.size == len(tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_in_pieces_give_the_same_tokens(kind: TokenizerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build(kind)
    for text in [SAMPLE * 3, *(random_text(seed, 2000) for seed in range(10)), "\n \n" * 100, "a\n\x0cb\n" * 100]:
        whole = tokenizer.encode(text)
        with monkeypatch.context() as patched:
            patched.setattr(tokenizer_module, "PIECE", 20)
            assert len(list(tokenizer._pieces(text))) > 1 or "\n" not in text.strip() or text.startswith("\n ")
            assert tokenizer.encode(text) == whole


def test_characters_are_the_vocabulary_and_nothing_else() -> None:
    tokenizer = Character([]).build(iter(["hello\n", "world"]))
    assert tokenizer.size == len(set("hello\nworld"))
    assert tokenizer.encode("\nde") == [0, 1, 2]  # in the order of their code points
    assert tokenizer.decode(tokenizer.encode("hello\n\nworld")) == "hello\n\nworld"
    assert (tokenizer.eos_id, tokenizer.start_id) == (None, None)
    with pytest.raises(UserError, match="character 'x' is not in the vocabulary and there is no unk token"):
        tokenizer.encode("hex")


def test_unseen_characters_are_unknown() -> None:
    tokenizer = Character().build(iter(["abc"]))
    unk = tokenizer.special_id("unk")
    assert tokenizer.encode("axx") == [tokenizer.encode("a")[0], unk, unk]
    assert tokenizer.size == 5


def test_words() -> None:
    tokenizer = Word(6).build(iter(["the cat the dog\nthe <unk> cat\n"]))
    assert tokenizer.size == 6
    assert tokenizer.decode(tokenizer.encode("the  cat\nsat")) == "the cat \n <unk>"
    assert tokenizer.encode("<unk> <eos>") == [tokenizer.special_id("unk"), tokenizer.eos_id]


def test_sizes_and_special_tokens_are_checked() -> None:
    with pytest.raises(UserError, match="vocab_size: is 256, must be at least 257"):
        ByteLevelBPE(256)
    with pytest.raises(UserError, match="names one twice"):
        Character(["<eos>", "<eos>"])
    with pytest.raises(UserError, match="Word needs '<unk>'"):
        Word(special_tokens=[])
    with pytest.raises(UserError, match="data.tokenizer.pattern"):
        build(ByteLevelBPE(300, pattern="(("))
    assert build(ByteLevelBPE(300)).size == 300


def test_tokenizer_files(tmp_path: Path) -> None:
    ours = build(ByteLevelBPE(300, ["<eos>", "<end>"]))
    path = tmp_path / "tokenizer.json"
    path.write_text(ours.to_json())
    same = TokenizerFile(str(path)).build(iter(()))
    assert same.fingerprint == ours.fingerprint
    other = TokenizerFile(str(path), eos_token="<end>").build(iter(()))
    assert other.eos_id == ours.backend.token_to_id("<end>") != ours.eos_id
    assert other.fingerprint != ours.fingerprint
    again = Tokenizer.from_json(other.to_json())
    assert (again.eos_id, again.fingerprint) == (other.eos_id, other.fingerprint)
    with pytest.raises(UserError, match="the eos token '<no>' is not in the vocabulary"):
        TokenizerFile(str(path), eos_token="<no>").build(iter(()))
    for content in (b"", b"{}", b"[1]", b"\xff", b'{"special_tokens": 1, "tokenizer": 2}', path.read_bytes()[:100]):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(UserError, match="bad.json: not a tokenizer.json") as raised:
            TokenizerFile(str(tmp_path / "bad.json")).build(iter(()))
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="none.json: cannot read the tokenizer"):
        TokenizerFile(str(tmp_path / "none.json")).build(iter(()))


def test_tiny_shakespeare_has_65_symbols(real: Path) -> None:
    text = (real / "tinyshakespeare" / "train.txt").read_text()
    assert Character([]).build(iter([text])).size == 65


def test_wikitext_has_the_published_sizes(real: Path) -> None:
    import gzip

    folder = real / "wikitext2"
    texts = {
        split: gzip.decompress((folder / f"{split}.txt.gz").read_bytes()).decode() for split in ("train", "validation")
    }
    tokenizer = Word(special_tokens=["<unk>"]).build(iter([texts["train"]]))
    assert tokenizer.size == 33278
    assert len(tokenizer.encode(texts["validation"])) == 217646
