"""The DataModule of classification: rows of one or several texts and a label."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

# The corpora that are not named here are imported so that a recipe can name them by their short names.
from lit_transformer.data import stdlib_packages, subwords  # noqa: F401
from lit_transformer.data.batch import IGNORED, PADDING, LabelBatch
from lit_transformer.data.bucketing import RowBatches, TokenBudget
from lit_transformer.data.corpora import Document
from lit_transformer.data.field_file import FieldFile
from lit_transformer.data.layouts import Layout
from lit_transformer.data.progress import shown
from lit_transformer.data.row_data import RowData
from lit_transformer.data.rows import Row, RowCorpus
from lit_transformer.data.token_file import Ints
from lit_transformer.data.tokenizers import Tokenizer, TokenizerKind
from lit_transformer.errors import UserError
from lit_transformer.vocabulary import Vocabulary

FORMAT = 1
"""Part of the key of the cache: counts up when what is written changes."""


@dataclass(frozen=True)
class Classes:
    """What a task is told of the labels.

    Args:
        names: Name of each class, in the order of their numbers.
        counts: Number of train rows of each.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]


class LabelledRows(RowBatches):
    """The rows of a split with their labels.

    Args:
        file: Their texts.
        labels: (N,) number of the class of each row, -100 where it is not known.
        layout: How texts become a sequence.
        tokenizer: Knows the special tokens.
        max_len: Most tokens of a row.
        budget: Says how wide a batch is.
    """

    def __init__(
        self, file: FieldFile, labels: Ints, layout: Layout, tokenizer: Tokenizer, max_len: int, budget: TokenBudget
    ) -> None:
        self.file = file
        self.labels = labels
        self.layout = layout
        self.tokenizer = tokenizer
        self.max_len = max_len
        self.budget = budget
        self._lengths = layout.lengths(file.lengths, tokenizer, max_len)

    def __len__(self) -> int:
        return len(self.labels)

    def lengths(self, epoch: int) -> Ints:
        """See the base class; the same in every epoch."""
        return self._lengths

    def target_counts(self, ids: Ints) -> Ints:
        """See the base class: 1 for a labelled row."""
        return np.asarray((ids != PADDING) & (self.labels[ids % len(self)] != IGNORED), dtype=np.int64)

    @property
    def identity(self) -> dict[str, int | str]:
        """The texts and how they are laid out."""
        return {"corpus": self.file.folder.name, "max_len": self.max_len, "layout": type(self.layout).__name__}

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LabelBatch:
        """See the base class."""
        rows = ids % len(self)
        real = ids != PADDING
        width = int(self.budget.widths(self._lengths[rows].reshape(-1, 1))[0])
        pad = self.tokenizer.special_id("pad") or 0
        tokens = np.full((len(ids), width), pad, dtype=np.int64)
        types, documents = np.zeros_like(tokens), np.full_like(tokens, PADDING)
        for place in np.flatnonzero(real):
            row, kinds = self.layout.row(self.file.texts(int(rows[place])), self.tokenizer, self.max_len)
            tokens[place, : len(row)], types[place, : len(row)], documents[place, : len(row)] = row, kinds, 0
        sequence = torch.from_numpy(tokens)
        read = torch.from_numpy(documents) if (documents < 0).any() else None
        source = sequence
        if self.layout.splits_source:
            sequence = torch.full((len(ids), 1), self.tokenizer.start_id or 0)
        counts = self.target_counts(ids)
        return LabelBatch(
            tokens=sequence,
            positions=torch.arange(sequence.shape[1]).expand_as(sequence).contiguous(),
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(int(counts.sum()) if window_tokens is None else window_tokens),
            labels=torch.from_numpy(np.where(counts > 0, self.labels[rows], IGNORED)),
            documents=None if self.layout.splits_source else read,
            types=torch.from_numpy(types) if self.layout.has_types else None,
            source=source if self.layout.splits_source else None,
            source_documents=read if self.layout.splits_source else None,
        )


class ClassificationData(RowData):
    """Rows of one text or several, and the class of each.

    The classes are the labels of the train split, in alphabetical order (numbers in theirs). The tokenizer is trained
    on the texts of the train split. Texts are tokenised once and kept in a cache, under the content they were made
    from.

    Args:
        corpus: Where the rows come from.
        tokenizer: How text becomes tokens.
        text: Name of the field that holds the text, or the names of several (premise and hypothesis).
        label: Name of the field that holds the class: text or a whole number. Test rows may leave it empty.
        max_len: Most tokens of a row, special ones included.
        layout: How texts become a sequence, and what is cut where they are too long.
        batches: How rows are put together, in training and evaluation.
        seed: Decides the order of the samples.
        num_workers: Number of worker processes; 0 reads in the training process.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
    """

    corpus: RowCorpus

    def __init__(
        self,
        corpus: RowCorpus,
        tokenizer: TokenizerKind,
        text: list[str] | str = "text",
        label: str = "label",
        max_len: int = 128,
        layout: Layout | None = None,
        batches: TokenBudget | None = None,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(batches, seed, num_workers, cache_dir)
        if max_len < 1:
            raise UserError(f"data.max_len: is {max_len}, must be at least 1")
        self.corpus = corpus
        corpus.cache_dir = str(self.cache.folder)
        self.tokenizer_kind = tokenizer
        self.text = [text] if isinstance(text, str) else list(text)
        if not self.text:
            raise UserError("data.text: names no field")
        self.label = label
        self.max_len = max_len
        self.layout = layout or Layout()
        self._rows: dict[str, LabelledRows] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained on the texts of the train split at the first use or taken from the cache."""
        if not self.tokenizer_kind.reads_corpus:
            return self.tokenizer_kind.build(iter(()))

        def build(folder: Path) -> None:
            texts = (document.text for document in shown(self._texts("train"), "Training the tokenizer"))
            (folder / "tokenizer.json").write_text(self.tokenizer_kind.build(texts).to_json(), "utf-8")

        key = {"format": FORMAT, "tokenizer": self.tokenizer_kind.key(), **self._key("train")}
        path = self.cache.entry("tokenizer", key, build) / "tokenizer.json"
        return Tokenizer.from_json(path.read_text("utf-8"), name=str(path))

    @property
    def vocabulary(self) -> Vocabulary:
        """What the network is told: number of tokens, special ids, longest row."""
        return self.tokenizer.vocabulary(max_len=self.max_len)

    @cached_property
    def classes(self) -> Classes:
        """What the task is told: names of the classes and how many train rows each has.

        Raises:
            UserError: There is one class only.
        """
        counts = Counter(self._labels("train"))
        names = sorted(counts, key=lambda name: (0, int(name), "") if name.lstrip("-").isdecimal() else (1, 0, name))
        if len(names) < 2:
            raise UserError(
                f"{self.corpus.source('train')}: field {self.label!r} has one class only, {names[0]!r}; nothing can be "
                "learned from it: name another field by data.label"
            )
        return Classes(tuple(names), tuple(counts[name] for name in names))

    def rows(self, split: str, training: bool) -> LabelledRows:
        """The rows of a split: the same in training and evaluation.

        Raises:
            UserError: A row without text or label, one that is too long, or a class that training has not seen.
        """
        if split not in self._rows:
            self._rows[split] = self._prepared(split)
        return self._rows[split]

    def _prepared(self, split: str) -> LabelledRows:
        key = {"format": FORMAT, "tokenizer": self.tokenizer.fingerprint, **self._key(split)}

        def build(folder: Path) -> None:
            FieldFile.write(folder, shown(self._texts(split), f"Tokenising {split}"), self.tokenizer)

        file = FieldFile.open(self.cache.entry("fields", key, build), len(self.text))
        numbers = {name: number for number, name in enumerate(self.classes.names)} | {"": IGNORED}
        names = self._labels(split)
        for place, name in enumerate(names):
            if name not in numbers:
                raise UserError(
                    f"{self._where(split, place)}: the class {name!r} does not occur in the train split; the classes "
                    f"there are: {_few(self.classes.names)}"
                )
        labels = np.array([numbers[name] for name in names], dtype=np.int64)
        rows = LabelledRows(file, labels, self.layout, self.tokenizer, self.max_len, self.batches)
        self._check_lengths(split, rows)
        return rows

    def _check_lengths(self, split: str, rows: LabelledRows) -> None:
        lengths = rows.lengths(0)
        whole = rows.file.lengths.sum(axis=1) + self.layout.extra(self.tokenizer, len(self.text))
        if (empty := np.flatnonzero(lengths == 0)).size:
            raise UserError(
                f"{self._where(split, int(empty[0]))}: holds no token; leave the row out, or add '<eos>' to "
                "data.tokenizer.special_tokens"
            )
        if (longer := np.flatnonzero(lengths > self.max_len)).size:
            first = int(longer[0])
            raise UserError(
                f"{self._where(split, first)}: {lengths[first]} tokens, data.max_len is {self.max_len} ({longer.size} "
                f"of {len(lengths)} rows are longer, the longest has {lengths.max()}); raise it, or cut rows by "
                "data.layout: {truncation: KeepStart}"
            )
        if cut := int((whole > self.max_len).sum()):
            lost = 1 - lengths.sum() / whole.sum()
            message = f"{split}: {cut:,} of {len(lengths):,} rows are cut to {self.max_len} tokens, {lost:.1%} of all"
            print(message, file=sys.stderr)
            logging.getLogger("lit_transformer.run").info(message)

    def _key(self, split: str) -> dict[str, object]:
        return {"corpus": self.corpus.fingerprint(split), "text": self.text}

    def _texts(self, split: str) -> Iterator[Document]:
        """The texts of all rows, those of a row one after the other."""
        return (Document(row.where, row.text(field)) for row in self.corpus.rows(split) for field in self.text)

    def _labels(self, split: str) -> list[str]:
        """The name of the class of each row; empty where a test row has none."""

        def build(folder: Path) -> None:
            names = [self._name(row, split) for row in self.corpus.rows(split)]
            (folder / "labels.json").write_text(json.dumps(names, ensure_ascii=False), "utf-8")

        key = {"format": FORMAT, "corpus": self.corpus.fingerprint(split), "label": self.label, "split": split}
        names: list[str] = json.loads((self.cache.entry("labels", key, build) / "labels.json").read_text("utf-8"))
        return names

    def _name(self, row: Row, split: str) -> str:
        if split == "test" and row.values.get(self.label) is None:
            return ""
        value = row.value(self.label)
        if not isinstance(value, (str, int)) or value == "":
            raise UserError(f"{row.where}: field {self.label!r} is {value!r}, must be the name or number of a class")
        return str(value)

    def _where(self, split: str, place: int) -> str:
        return next(row.where for number, row in enumerate(self.corpus.rows(split)) if number == place)


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
