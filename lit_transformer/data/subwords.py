"""Tokenizers whose tokens are words and parts of words: BPE, WordPiece, Unigram, trained on the train split."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.data.tokenizers import TokenizerKind
from lit_transformer.data.unigram import unigram_pieces
from lit_transformer.errors import UserError

MARK = "\u2581"
"""Written for a space: a token knows whether a word begins with it."""

PIECES = "|".join(
    [
        rf"{MARK}?[\p{{L}}\p{{M}}]+",
        rf"{MARK}?\p{{N}}{{1,3}}",
        rf"{MARK}?[^\s\p{{L}}\p{{M}}\p{{N}}{MARK}]+",
        rf"\s+|{MARK}+(?={MARK})|{MARK}",
    ]
)
"""What no token crosses: a word, up to three digits, or other signs, each with the space before it."""

Case = Literal["keep", "lower"]


class Subwords(TokenizerKind):
    """Base of the tokenizers that cut rare words into parts.

    Args:
        vocab_size: Number of tokens, special ones included; less if the text does not give so many.
        special_tokens: Tokens that stand for no text, with the first ids.
        case: "lower" reads all text in lower case.
    """

    unknown = "<unk>"

    def __init__(self, vocab_size: int, special_tokens: Sequence[str], case: Case = "keep") -> None:
        super().__init__(special_tokens)
        self.vocab_size = vocab_size
        self.case = case
        if case not in ("keep", "lower"):
            raise UserError(f"data.tokenizer.case: is {case!r}, must be 'keep' or 'lower'")
        if self.unknown not in self.special_tokens:
            raise UserError(
                f"data.tokenizer.special_tokens: {type(self).__name__} needs {self.unknown!r}, for characters that it "
                "has not seen"
            )

    def _marked(self, backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
        """Sets how text is cut, and put together again exactly: a mark for each space and one before the text."""
        lower = [normalizers.Lowercase()] if self.case == "lower" else []
        backend.normalizer = normalizers.Sequence([*lower, normalizers.Replace(" ", MARK), normalizers.Prepend(MARK)])
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
        backend.decoder = decoders.Sequence(
            [decoders.Replace(MARK, " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
        )
        return backend

    def _check_room(self, characters: int) -> None:
        least = characters + len(self.special_tokens)
        if self.vocab_size < least:
            raise UserError(
                f"data.tokenizer.vocab_size: is {self.vocab_size}, must be at least {least}: the characters of the "
                "train split and the special tokens"
            )


def word_counts(backend: tokenizers.Tokenizer, texts: Iterator[str]) -> Counter[str]:
    """How often each piece that the tokenizer's first stage gives occurs."""
    counts: Counter[str] = Counter()
    for text in texts:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        counts.update(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    return counts


class BPE(Subwords):
    """Byte-pair encoding over characters (Sennrich et al., 2016, arXiv:1508.07909): the commonest pairs are merged.

    Spaces belong to the word behind them, so decoding gives the text back exactly, up to characters that training has
    not seen (and U+2581, which becomes a space).

    Args:
        vocab_size: Number of tokens, special ones included; less if the text has no more pairs to merge.
        special_tokens: Tokens that stand for no text, with the first ids.
        case: "lower" reads all text in lower case.
    """

    def __init__(
        self, vocab_size: int = 8000, special_tokens: Sequence[str] = ("<eos>", "<unk>"), case: Case = "keep"
    ) -> None:
        super().__init__(vocab_size, special_tokens, case)

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Trains on the texts."""
        backend = self._marked(tokenizers.Tokenizer(models.BPE(unk_token=self.unknown)))
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size, special_tokens=self.special_tokens, show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        characters = sum(len(name) == 1 for name in backend.get_vocab(with_added_tokens=False))
        self._check_room(characters)
        return self._finish(backend)


class Unigram(Subwords):
    """A unigram language model of pieces (Kudo, 2018, arXiv:1804.10959), of which the likeliest cut is taken.

    Spaces belong to the word behind them, as in ``BPE``.

    Args:
        vocab_size: Number of tokens, special ones included; less if the text does not give so many.
        special_tokens: Tokens that stand for no text, with the first ids.
        case: "lower" reads all text in lower case.
    """

    LEAST = -1000.0
    """The score of special tokens: a text that spells one is never read as it."""

    def __init__(
        self, vocab_size: int = 8000, special_tokens: Sequence[str] = ("<eos>", "<unk>"), case: Case = "keep"
    ) -> None:
        super().__init__(vocab_size, special_tokens, case)

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Trains on the texts."""
        counts = word_counts(self._marked(tokenizers.Tokenizer(models.Unigram())), texts)
        self._check_room(len(set().union(*counts)))
        # The library's own trainer sums in an order that changes from run to run, and so do its scores.
        pieces = unigram_pieces(counts, self.vocab_size - len(self.special_tokens))
        taken = set(self.special_tokens)
        vocab = [(name, self.LEAST) for name in self.special_tokens]
        vocab += [(piece, score) for piece, score in pieces if piece not in taken]
        unk = self.special_tokens.index(self.unknown)
        return self._finish(self._marked(tokenizers.Tokenizer(models.Unigram(vocab, unk_id=unk))))


class WordPiece(Subwords):
    """BERT's tokenizer (Devlin et al., 2019): words and signs, cut into their longest known parts from the left.

    Parts within a word are written with ``##`` before them. Decoding puts one space between words and none before
    punctuation: the text comes back up to its spacing. A special token that is spelt in letters alone is also a word.

    Args:
        vocab_size: Number of tokens, special ones included; less if the text has no more parts.
        special_tokens: Tokens that stand for no text, with the first ids.
        case: "lower" reads all text in lower case and without accents, as BERT's uncased models do.
    """

    unknown = "[UNK]"

    def __init__(
        self,
        vocab_size: int = 8000,
        special_tokens: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        case: Case = "keep",
    ) -> None:
        super().__init__(vocab_size, special_tokens, case)

    def build(self, texts: Iterator[str]) -> Tokenizer:
        """Trains on the texts."""
        cut = self._words(tokenizers.Tokenizer(models.BPE()))
        counts = word_counts(cut, texts)
        first = sorted({word[0] for word in counts})
        within = sorted({f"##{sign}" for word in counts for sign in word[1:]})
        self._check_room(len(first) + len(within))
        # Parts are found by merging pairs. The characters are named in their order: the library's own trainer numbers
        # them as they come, in an order that changes from run to run, and breaks ties by the numbers.
        names = list(dict.fromkeys([*self.special_tokens, *first, *within]))
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size, special_tokens=names, continuing_subword_prefix="##", show_progress=False
        )
        cut.train_from_iterator(("\n".join([word] * count) for word, count in sorted(counts.items())), trainer)
        vocab = cut.get_vocab(with_added_tokens=False)
        model = models.WordPiece(vocab, unk_token=self.unknown, max_input_chars_per_word=100)
        backend = self._words(tokenizers.Tokenizer(model))
        backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
        return self._finish(backend)

    def _words(self, backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
        backend.normalizer = normalizers.BertNormalizer(lowercase=self.case == "lower")
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return backend
