"""The kinds of tokenizers, each made from the documents of the train split or read from a file."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lit_transformer.data.tokenizer import PATTERN, Tokenizer, byte_level, words
from lit_transformer.errors import UserError

__all__ = ["Bytes", "ByteLevelBPE", "Character", "Tokenizer", "TokenizerFile", "TokenizerKind", "Word"]


class TokenizerKind:
    """How a tokenizer is made from the documents of the train split.

    Args:
        special_tokens: Tokens that stand for no text, with the first ids: ``<eos>`` ends documents, ``<unk>`` stands
            for what was not seen in training; ``<pad>``, ``<bos>``, ``<mask>``, ``<cls>`` and ``<sep>`` have their
            usual roles.
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
        mask_token: Name of the token that hides another.
        cls_token: Name of the token that stands for a whole text.
        sep_token: Name of the token between two texts.
    """

    reads_corpus = False

    def __init__(
        self,
        path: str,
        eos_token: str | None = None,
        bos_token: str | None = None,
        unk_token: str | None = None,
        pad_token: str | None = None,
        mask_token: str | None = None,
        cls_token: str | None = None,
        sep_token: str | None = None,
    ) -> None:
        super().__init__(())
        self.path = path
        named = {"eos": eos_token, "bos": bos_token, "unk": unk_token, "pad": pad_token}
        named |= {"mask": mask_token, "cls": cls_token, "sep": sep_token}
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
