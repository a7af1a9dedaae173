"""Text to token ids and back: the tokenizer, and the kinds that can be trained on a corpus."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

# Said by `tokenizers` itself, or every worker of a DataLoader prints a warning about forking.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import tokenizers  # noqa: E402
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers  # noqa: E402

from lit_transformer.errors import UserError  # noqa: E402
from lit_transformer.vocabulary import Vocabulary  # noqa: E402

ROLES: dict[str, tuple[str, ...]] = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "bos": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|startoftext|>"),
    "eos": ("<eos>", "</s>", "[SEP]", "<|endoftext|>", "<|end_of_text|>"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
}
"""The names that special tokens go by; the first one is ours."""

PATTERN = r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|[ \t]*+[\r\n]++[ \t]*+| ?+[^\s\p{L}\p{N}]++|\s+(?!\S)|\s+"
"""What byte-level BPE never merges across: words with one sign before them, up to three digits, an end of line with the
indentation after it, other signs. On Python source it gives 4 % fewer tokens than GPT-2's pattern."""

PIECE = 1 << 20
"""Longer texts are tokenised in pieces of about this many characters, where a piece cannot change the result."""


class Tokenizer:
    """A ``tokenizers.Tokenizer`` with the roles of its special tokens.

    A special token written out in a text is text: only the data puts special ids between documents.

    Args:
        backend: The tokenizer of the library.
        special_tokens: Name of the token for each role (``pad``, ``bos``, ``eos``, ``unk``, ``mask``). Left out: told
            by the usual names.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str] | None = None) -> None:
        self.backend = backend
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        usual = {role: next((name for name in names if name in added), None) for role, names in ROLES.items()}
        chosen = {**usual, **(special_tokens or {})}
        self.special_tokens: dict[str, str] = {role: name for role, name in chosen.items() if name is not None}
        self._usual = self.special_tokens == {role: name for role, name in usual.items() if name is not None}
        for role, name in self.special_tokens.items():
            if backend.token_to_id(name) is None:
                raise UserError(f"data.tokenizer: the {role} token {name!r} is not in the vocabulary")

    def special_id(self, role: str) -> int | None:
        """The id of the token for ``pad``, ``bos``, ``eos``, ``unk`` or ``mask``."""
        name = self.special_tokens.get(role)
        return None if name is None else self.backend.token_to_id(name)

    @property
    def eos_id(self) -> int | None:
        """Ends a document."""
        return self.special_id("eos")

    @property
    def start_id(self) -> int | None:
        """What the first token of a document is predicted from: bos, or eos where there is no bos."""
        bos = self.special_id("bos")
        return self.eos_id if bos is None else bos

    @cached_property
    def size(self) -> int:
        """Number of tokens V: one more than the largest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        return self.size

    def vocabulary(self, max_len: int | None = None) -> Vocabulary:
        """What a network is told of this tokenizer."""
        ids = {f"{role}_id": self.special_id(role) for role in ROLES}
        return Vocabulary(size=self.size, max_len=max_len, **ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special ids around it.

        Raises:
            UserError: A character that the vocabulary does not have, where there is no unk token either.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, on all cores."""
        pieces = [list(self._pieces(text)) for text in texts]
        for text in texts:
            if unknown := self.unknown(text):
                raise UserError(
                    f"character {unknown!r} is not in the vocabulary and there is no unk token; add '<unk>' to "
                    "data.tokenizer.special_tokens or use ByteLevelBPE"
                )
        flat = [piece for some in pieces for piece in some]
        encoded = iter(self.backend.encode_batch_fast(flat, add_special_tokens=False))
        return [[token for _ in some for token in next(encoded).ids] for some in pieces]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def unknown(self, text: str) -> str | None:
        """A character that can neither be represented nor stand as unk; None if there is none."""
        if self._alphabet is None:
            return None
        return min(set(text) - self._alphabet, default=None)

    def byte_length(self, token: int) -> int:
        """Number of UTF-8 bytes of the text that a token stands for."""
        name = self.backend.id_to_token(token) or ""
        byte_level = isinstance(self.backend.decoder, decoders.ByteLevel)
        return len(name) if byte_level and token not in self._special_ids else len(self.decode([token]).encode())

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.backend.get_added_tokens_decoder())

    @cached_property
    def _alphabet(self) -> frozenset[str] | None:
        """The characters that a tokenizer without unk knows; None where every text can be represented."""
        model = self.backend.model
        if isinstance(self.backend.decoder, decoders.ByteLevel) or getattr(model, "unk_token", None) is not None:
            return None
        if getattr(model, "byte_fallback", False) or not isinstance(model, models.BPE):
            return None
        return frozenset(name for name in self.backend.get_vocab(with_added_tokens=False) if len(name) == 1)

    @cached_property
    def _cuts_at_lines(self) -> bool:
        """Whether a cut before a line that starts with no space leaves the tokens as they are: for our own kinds."""
        splitter = self.backend.pre_tokenizer
        if self.backend.normalizer is not None:
            return False
        return splitter is None or any(_state(splitter) == _state(ours) for ours in (byte_level(PATTERN), words()))

    def _pieces(self, text: str) -> Iterator[str]:
        start = 0
        while len(text) - start > PIECE and self._cuts_at_lines:
            cut = start + PIECE
            while cut < len(text) and not (text[cut - 1] == "\n" and not text[cut].isspace()):
                cut = text.find("\n", cut) + 1 or len(text)
            yield text[start:cut]
            start = cut
        yield text[start:]

    def to_json(self) -> str:
        """The ``tokenizer.json`` text; roles are added around it only where the names do not tell them."""
        text: str = self.backend.to_str(pretty=False)
        if self._usual:
            return text
        return json.dumps({"special_tokens": self.special_tokens, "tokenizer": json.loads(text)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, special_tokens: Mapping[str, str] | None = None, name: str = "tokenizer") -> Self:
        """Reads what ``to_json`` wrote, or any ``tokenizer.json``; ``name`` is what an error calls it."""
        try:
            content = json.loads(text)
            if isinstance(content, dict) and content.keys() == {"special_tokens", "tokenizer"}:
                special_tokens = {**content["special_tokens"], **(special_tokens or {})}
                text = json.dumps(content["tokenizer"], ensure_ascii=False)
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"{name}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
        return cls(backend, special_tokens)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON and of the special ids."""
        content = [json.loads(self.backend.to_str()), {role: self.special_id(role) for role in ROLES}]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def byte_level(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Cuts a text by a pattern and spells the pieces in the 256 symbols of byte-level BPE."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def words() -> pre_tokenizers.PreTokenizer:
    """Words between spaces; the end of a line is a word of its own."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed")]
    )


def _state(part: pre_tokenizers.PreTokenizer) -> bytes:
    return part.__getstate__()


class TokenizerKind:
    """How a tokenizer is made from the documents of the train split.

    Args:
        special_tokens: Tokens that stand for no text, with the first ids: ``<eos>`` ends documents, ``<unk>`` stands
            for what was not seen in training, ``<pad>``, ``<bos>`` and ``<mask>`` have their usual roles.
    """

    def __init__(self, special_tokens: Sequence[str] = ("<eos>",)) -> None:
        self.special_tokens = list(special_tokens)
        if len(set(self.special_tokens)) != len(self.special_tokens):
            raise UserError(f"data.tokenizer.special_tokens: names one twice: {', '.join(self.special_tokens)}")

    reads_corpus = True
    """Whether the result depends on the documents."""

    def key(self) -> dict[str, object]:
        """What the result depends on beside the documents; plain data, part of the key of the cache."""
        return {"kind": type(self).__qualname__, **vars(self)}

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """The tokenizer; ``texts`` are the documents of the train split, each read once."""
        raise NotImplementedError

    def _finish(self, backend: tokenizers.Tokenizer) -> Tokenizer:
        backend.add_special_tokens([token for token in self.special_tokens])
        return Tokenizer(backend)

    def _with_special(self, names: Sequence[str]) -> dict[str, int]:
        taken = dict.fromkeys([*self.special_tokens, *names])
        return {name: number for number, name in enumerate(taken)}


class ByteLevelBPE(TokenizerKind):
    """Byte-pair encoding over bytes (Sennrich et al. 2016; GPT-2, 2019): every text can be represented, exactly.

    Args:
        vocab_size: Number of tokens, special ones included; less if the text has no more pairs to merge.
        special_tokens: Tokens that stand for no text.
        pattern: Regular expression (Oniguruma) of the pieces that merges stay within.
    """

    def __init__(
        self, vocab_size: int = 4096, special_tokens: Sequence[str] = ("<eos>",), pattern: str = PATTERN
    ) -> None:
        super().__init__(special_tokens)
        self.vocab_size = vocab_size
        self.pattern = pattern
        if vocab_size < 256 + len(self.special_tokens):
            raise UserError(
                f"data.tokenizer.vocab_size: is {vocab_size}, must be at least {256 + len(self.special_tokens)}: "
                "the bytes and the special tokens"
            )

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Trains on the texts."""
        backend = tokenizers.Tokenizer(models.BPE())
        try:
            backend.pre_tokenizer = byte_level(self.pattern)
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"data.tokenizer.pattern: {str(error).splitlines()[0]}") from None
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=self.special_tokens,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return self._finish(backend)


class Bytes(TokenizerKind):
    """One token a byte."""

    reads_corpus = False

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Needs no text."""
        alphabet = self._with_special(sorted(pre_tokenizers.ByteLevel.alphabet()))
        backend = tokenizers.Tokenizer(models.BPE(vocab=alphabet, merges=[], cache_capacity=0))
        backend.pre_tokenizer = byte_level(PATTERN)
        backend.decoder = decoders.ByteLevel()
        return self._finish(backend)


class Character(TokenizerKind):
    """One token a character of the train split, in the order of their code points.

    With ``special_tokens: []`` the vocabulary is the set of characters and nothing else, as in nanoGPT's
    ``shakespeare_char``: right for one single document. A character that was not seen is then an error.
    """

    def __init__(self, special_tokens: Sequence[str] = ("<eos>", "<unk>")) -> None:
        super().__init__(special_tokens)

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Collects the characters."""
        characters = sorted(set().union(*map(set, texts)))
        unk = "<unk>" if "<unk>" in self.special_tokens else None
        # BPE without merges gives the same ids as WordLevel over single characters, 10 times faster.
        model = models.BPE(vocab=self._with_special(characters), merges=[], cache_capacity=0, unk_token=unk)
        backend = tokenizers.Tokenizer(model)
        backend.decoder = decoders.Fuse()
        return self._finish(backend)


class Word(TokenizerKind):
    """One token a word between spaces; the end of a line is a word too, as the literature counts WikiText.

    Decoding puts one space between words.

    Args:
        vocab_size: Number of tokens, special ones included: the most frequent words. Left out: all words.
        special_tokens: Tokens that stand for no text; a word that reads the same is that token.
    """

    def __init__(self, vocab_size: int | None = None, special_tokens: Sequence[str] = ("<eos>", "<unk>")) -> None:
        super().__init__(special_tokens)
        self.vocab_size = vocab_size
        if "<unk>" not in self.special_tokens:
            raise UserError("data.tokenizer.special_tokens: Word needs '<unk>', for words that it has not seen")

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Counts the words."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(re.findall(r"\n|[^\s]+", text))
        by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
        room = None if self.vocab_size is None else max(0, self.vocab_size - len(self.special_tokens))
        kept = [word for word in by_frequency if word not in self.special_tokens][:room]
        backend = tokenizers.Tokenizer(models.WordLevel(vocab=self._with_special(kept), unk_token="<unk>"))
        backend.pre_tokenizer = words()
        return self._finish(backend)


class TokenizerFile(TokenizerKind):
    """A tokenizer read from a ``tokenizer.json``, of this program or of ``transformers``.

    Args:
        path: The file.
        eos_token: Name of the token that ends documents. Left out: the usual names (``</s>``, ``<|endoftext|>``, ...).
        bos_token: Name of the token that begins documents.
        unk_token: Name of the token for what is not known.
        pad_token: Name of the filler.
    """

    reads_corpus = False

    def __init__(
        self,
        path: str,
        eos_token: str | None = None,
        bos_token: str | None = None,
        unk_token: str | None = None,
        pad_token: str | None = None,
    ) -> None:
        super().__init__(())
        self.path = path
        named = {"eos": eos_token, "bos": bos_token, "unk": unk_token, "pad": pad_token}
        self.named = {role: name for role, name in named.items() if name is not None}

    def _text(self) -> str:
        try:
            return Path(self.path).expanduser().read_text("utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot read the tokenizer: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"{self.path}: not a tokenizer.json: not UTF-8") from None

    def key(self) -> dict[str, object]:
        """The content of the file, wherever it lies."""
        return {"kind": "TokenizerFile", "content": hashlib.sha256(self._text().encode()).hexdigest(), **self.named}

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Reads the file."""
        return Tokenizer.from_json(self._text(), self.named, name=self.path)
