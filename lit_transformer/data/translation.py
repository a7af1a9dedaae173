"""The DataModule of translation: sentences and their translations."""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

# The corpora and tokenizers that are not named here are imported so that a recipe can name them by their short names.
from lit_transformer.data import numerals, parallel, subwords, synthetic  # noqa: F401
from lit_transformer.data.bpe_dropout import BPEDropout, DroppedText
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.corpora import Document
from lit_transformer.data.field_file import FieldFile
from lit_transformer.data.pair_layouts import EncoderDecoderLayout, PairLayout
from lit_transformer.data.pair_rows import PairRows
from lit_transformer.data.progress import shown
from lit_transformer.data.row_data import RowData
from lit_transformer.data.rows import Row, RowCorpus
from lit_transformer.data.tokenizers import Tokenizer, TokenizerKind
from lit_transformer.errors import UserError
from lit_transformer.vocabulary import Vocabulary

FORMAT = 1
"""Part of the key of the cache: counts up when what is written changes."""


class Sides:
    """What the two sides of a pair are.

    Args:
        source: Name of the field to translate from.
        target: Name of the field to translate to.
        source_tokenizer: How sources become tokens; left out: as targets, with one vocabulary for both.
        empty: Whether a pair with an empty side is an error, or is skipped and counted.
    """

    def __init__(
        self,
        source: str = "source",
        target: str = "target",
        source_tokenizer: TokenizerKind | None = None,
        empty: Literal["error", "skip"] = "error",
    ) -> None:
        if empty not in ("error", "skip"):
            raise UserError(f"data.sides.empty: is {empty!r}, must be 'error' or 'skip'")
        self.source = source
        self.target = target
        self.source_tokenizer = source_tokenizer
        self.empty = empty

    def texts(self, row: Row) -> tuple[str, str]:
        """Source and target of a row; both empty where one is and such pairs are skipped.

        Raises:
            UserError: A side is missing or empty.
        """
        pair = row.text(self.source), row.text(self.target)
        if all(text.strip() for text in pair):
            return pair
        if self.empty == "error":
            side = self.target if pair[0].strip() else self.source
            raise UserError(
                f"{row.where}: field {side!r} is empty; fill it in, or leave such pairs out by data.sides.empty: skip"
            )
        return "", ""


@dataclass(frozen=True)
class Example:
    """A pair to be translated and compared with.

    Args:
        prompt: What decoding starts from: the source's tokens and the one that ends it.
        source: The source as it stands in the corpus.
        reference: The translation that stands there.
    """

    prompt: list[int]
    source: str
    reference: str


class TranslationData(RowData):
    """Sentences and their translations.

    The tokenizer is trained on both sides of the train split, unless the source has one of its own. Texts are tokenised
    once and kept in a cache, under the content they were made from.

    Args:
        corpus: Where the pairs come from.
        tokenizer: How text becomes tokens; it needs ``<eos>``.
        sides: The fields that hold source and target, and what is special about them.
        max_len: Most tokens of a sequence, special ones included.
        layout: What a network reads of a pair: two sequences or one; what is cut where they are too long.
        sampling: Random sub-words in training; left out: the tokenizer's own.
        batches: How pairs are put together, in training and evaluation.
        seed: Decides the order of the samples, and random sub-words.
        num_workers: Number of worker processes; 0 reads in the training process.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
    """

    def __init__(
        self,
        corpus: RowCorpus,
        tokenizer: TokenizerKind,
        sides: Sides | None = None,
        max_len: int = 256,
        layout: PairLayout | None = None,
        sampling: BPEDropout | None = None,
        batches: TokenBudget | None = None,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(batches, seed, num_workers, cache_dir)
        if max_len < 3:
            raise UserError(f"data.max_len: is {max_len}, must be at least 3")
        self.corpus = corpus
        corpus.cache_dir = str(self.cache.folder)
        self.tokenizer_kind = tokenizer
        self.sides = sides or Sides()
        self.max_len = max_len
        self.layout = layout or EncoderDecoderLayout()
        self.sampling = sampling
        self._rows: dict[tuple[str, bool], PairRows] = {}
        self._texts: dict[str, list[tuple[str, str]]] = {}
        if self.layout.shares_tokens and self.sides.source_tokenizer is not None:
            raise UserError(
                f"data.sides.source_tokenizer: {type(self.layout).__name__} puts both sides into one sequence, and so "
                "they share a tokenizer; leave it out"
            )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The targets' tokenizer, and the sources' too unless they have their own."""
        fields = [self.sides.target] if self.sides.source_tokenizer else [self.sides.source, self.sides.target]
        return self._tokenizer(self.tokenizer_kind, fields)

    @cached_property
    def source_tokenizer(self) -> Tokenizer:
        """The sources' tokenizer."""
        own = self.sides.source_tokenizer
        return self.tokenizer if own is None else self._tokenizer(own, [self.sides.source])

    def _tokenizer(self, kind: TokenizerKind, fields: Sequence[str]) -> Tokenizer:
        def build(folder: Path) -> None:
            texts = (document.text for document in shown(self._documents("train", fields), "Training the tokenizer"))
            (folder / "tokenizer.json").write_text(kind.build(texts).to_json(), "utf-8")

        if kind.reads_corpus:
            key = {"format": FORMAT, "tokenizer": kind.key(), **self._key("train", fields)}
            path = self.cache.entry("tokenizer", key, build) / "tokenizer.json"
            tokenizer = Tokenizer.from_json(path.read_text("utf-8"), name=str(path))
        else:
            tokenizer = kind.build(iter(()))
        if tokenizer.eos_id is None:
            raise UserError("data.tokenizer.special_tokens: translation needs '<eos>' among them, to end a sentence")
        return tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """What the network is told: number of tokens of both sides, special ids, longest sequence."""
        vocabulary = self.tokenizer.vocabulary(max_len=self.max_len)
        if self.sides.source_tokenizer is None:
            return vocabulary
        return Vocabulary(**{**vars(vocabulary), "source_size": self.source_tokenizer.size})

    def rows(self, split: str, training: bool) -> PairRows:
        """The pairs of a split; in training with random sub-words where the recipe says so.

        Raises:
            UserError: A pair that lacks a side or is too long, with its row.
        """
        dropped = training and self.sampling is not None
        if (split, dropped) not in self._rows:
            self._rows[split, dropped] = self._prepared(split, dropped)
        return self._rows[split, dropped]

    def example(self, split: str, row: int) -> Example:
        """The pair of an evaluated row, to be translated."""
        rows = self.rows(split, False)
        if split not in self._texts:
            self._texts[split] = [self.sides.texts(each) for each in self.corpus.rows(split)]
        source, reference = self._texts[split][int(rows.places[row])]
        end = self.source_tokenizer.eos_id
        assert end is not None
        return Example([*rows.pair(row)[0].tolist(), end], source, reference)

    def _prepared(self, split: str, dropped: bool) -> PairRows:
        sides = [(self.sides.source, self.source_tokenizer), (self.sides.target, self.tokenizer)]
        files = []
        for side, tokenizer in sides:

            def build(folder: Path, side: str = side, tokenizer: Tokenizer = tokenizer) -> None:
                texts = shown(self._documents(split, [side]), f"Tokenising {split}, {side}")
                FieldFile.write(folder, texts, tokenizer)

            key = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, **self._key(split, [side])}
            files.append(FieldFile.open(self.cache.entry("fields", key, build), 1))
        noise = None
        if dropped and self.sampling is not None:
            texts = [self.sides.texts(row) for row in self.corpus.rows(split)]
            noise = (
                DroppedText([pair[0] for pair in texts], self.source_tokenizer, self.sampling, 2 * self.seed),
                DroppedText([pair[1] for pair in texts], self.tokenizer, self.sampling, 2 * self.seed + 1),
            )
        rows = PairRows((files[0], files[1]), self.layout, self.tokenizer, self.max_len, self.batches, noise)
        if not dropped:
            self._check(split, rows)
        elif self.layout.truncation is None:
            self._check(split, self.rows(split, False))
        return rows

    def _check(self, split: str, rows: PairRows) -> None:
        """What was skipped and cut is counted and reported; what is too long otherwise is refused."""
        count = len(rows.files[0])
        if not len(rows):
            raise UserError(f"{self.corpus.source(split)}: all {count} pairs have an empty side")
        if skipped := count - len(rows):
            _say(f"{split}: {skipped:,} of {count:,} pairs have an empty side and are skipped")
        lengths = self.layout.lengths(rows.texts(0)).max(axis=1)
        longer = np.flatnonzero(lengths > self.max_len)
        if not longer.size:
            return
        if self.layout.truncation is not None:
            _say(f"{split}: {longer.size:,} of {len(rows):,} pairs are cut to {self.max_len} tokens")
            return
        place = int(rows.places[longer[0]])
        where = next(row.where for number, row in enumerate(self.corpus.rows(split)) if number == place)
        raise UserError(
            f"{where}: {lengths[longer[0]]} tokens, data.max_len is {self.max_len} ({longer.size} of {len(rows)} pairs "
            f"are longer, the longest has {lengths.max()}); raise it, or cut them by data.layout: "
            f"{{class_path: {type(self.layout).__name__}, truncation: KeepStart}}"
        )

    def _key(self, split: str, fields: Sequence[str]) -> dict[str, object]:
        both = [self.sides.source, self.sides.target]
        return {"corpus": self.corpus.fingerprint(split), "fields": list(fields), "of": both, "empty": self.sides.empty}

    def _documents(self, split: str, fields: Sequence[str]) -> Iterator[Document]:
        for row in self.corpus.rows(split):
            pair = dict(zip((self.sides.source, self.sides.target), self.sides.texts(row), strict=True))
            yield from (Document(row.where, pair[field]) for field in fields)


def _say(message: str) -> None:
    print(message, file=sys.stderr)
    logging.getLogger("lit_transformer.run").info(message)
