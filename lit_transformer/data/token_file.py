"""A split as token ids on disk, and what is known of its documents."""

import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lit_transformer.data.cache import Cache
from lit_transformer.data.corpora import Corpus, Document
from lit_transformer.data.progress import shown
from lit_transformer.data.tokenizers import Tokenizer, TokenizerKind
from lit_transformer.errors import UserError

FORMAT = 1
"""Part of the key of the cache: counts up when what is written changes."""

BATCH_CHARACTERS = 1 << 22

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Statistics:
    """What metrics need to know of a split, over all of its targets.

    Bits per byte is ``loss * targets / bytes / ln 2`` with the mean loss in nats over all targets.

    Args:
        documents: Number of documents that hold a target.
        tokens: Number of tokens of the text, special ones not counted.
        targets: Number of tokens that are predicted: of the text, and the end of each document.
        bytes: Number of UTF-8 bytes of the text that is predicted.
        words: Number of words (between white space) of the text.
    """

    documents: int
    tokens: int
    targets: int
    bytes: int
    words: int

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes that one target stands for on average."""
        return self.bytes / max(1, self.targets)


def enclosed(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """A document as it is stored: between the token that starts it and the one that ends it, where there are such.

    Every token but the first is then predicted from those before it, so every byte of the text is, and the end too. A
    tokenizer with neither bos nor eos leaves the first token of a document unpredicted.
    """
    start, end = tokenizer.start_id, tokenizer.eos_id
    return ([] if start is None else [start]) + ids + ([] if end is None else [end])


def encoded(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[Document, list[int]]]:
    """Documents with their token ids, tokenised many at a time."""
    pending = iter(documents)
    while batch := list(islice(_limited(pending), 1024)):
        try:
            ids = tokenizer.encode_batch([document.text for document in batch])
        except UserError:
            for document in batch:  # one by one, to name the document
                if (unknown := tokenizer.unknown(document.text)) is not None:
                    raise UserError(
                        f"{document.name}: character {unknown!r} is not in the tokenizer's vocabulary and there is no "
                        "unk token; add '<unk>' to data.tokenizer.special_tokens or use ByteLevelBPE"
                    ) from None
            raise
        yield from zip(batch, ids, strict=True)


def _limited(documents: Iterator[Document]) -> Iterator[Document]:
    size = 0
    for document in documents:
        yield document
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            return


@dataclass(frozen=True)
class TokenFile:
    """The token ids of the documents of a split, each as ``enclosed`` gives it, one after the other.

    Args:
        folder: Where it lies.
        tokens: (N,) uint16 or uint32, read from the disk as needed.
        starts: (documents + 1,) where each document starts in ``tokens``.
        statistics: Sums over the split.
    """

    folder: Path
    tokens: NDArray[np.unsignedinteger[Any]]
    starts: Ints
    statistics: Statistics

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenFile.open, (self.folder,)  # a worker process opens the file, instead of being sent its content

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens what ``write`` wrote."""
        documents = np.load(folder / "documents.npy")
        length, n_bytes, n_words, n_special = documents
        tokens = np.load(folder / "tokens.npy", mmap_mode="r" if length.sum() else None)
        targets = np.maximum(length - 1, 0)
        statistics = Statistics(
            documents=int((targets > 0).sum()),
            tokens=int((length - n_special).sum()),
            targets=int(targets.sum()),
            bytes=int(n_bytes.sum()),
            words=int(n_words.sum()),
        )
        return cls(folder, np.asarray(tokens), np.concatenate([[0], np.cumsum(length)]), statistics)

    @staticmethod
    def write(folder: Path, documents: Iterable[Document], tokenizer: Tokenizer) -> None:
        """Tokenises documents into a folder."""
        dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
        rows: list[tuple[int, int, int, int]] = []
        unstarted = tokenizer.start_id is None
        raw = folder / "tokens.raw"
        with raw.open("wb") as file:
            for document, ids in encoded(documents, tokenizer):
                stored = enclosed(ids, tokenizer)
                file.write(np.asarray(stored, dtype=dtype).tobytes())
                size = len(document.text.encode())
                if unstarted and ids:
                    size -= min(size, tokenizer.byte_length(ids[0]))
                rows.append((len(stored), size, len(document.text.split()), len(stored) - len(ids)))
        np.save(folder / "documents.npy", np.array(rows, dtype=np.int64).reshape(-1, 4).T)
        count = sum(row[0] for row in rows)
        with (folder / "tokens.npy").open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, header)
            with raw.open("rb") as content:
                while piece := content.read(1 << 22):
                    file.write(piece)
        raw.unlink()


def prepared_tokenizer(corpus: Corpus, kind: TokenizerKind, cache: Cache) -> Tokenizer:
    """The tokenizer of a corpus, trained on its train split or taken from the cache."""
    if not kind.reads_corpus:
        return kind.build(iter(()))

    def build(folder: Path) -> None:
        texts = (document.text for document in shown(corpus.documents("train"), "Training the tokenizer"))
        (folder / "tokenizer.json").write_text(kind.build(texts).to_json(), "utf-8")

    key = {"format": FORMAT, "tokenizer": kind.key(), "corpus": corpus.fingerprint("train")}
    folder = cache.entry("tokenizer", key, build)
    return Tokenizer.from_json((folder / "tokenizer.json").read_text("utf-8"), name=str(folder / "tokenizer.json"))


def prepared_tokens(corpus: Corpus, split: str, tokenizer: Tokenizer, cache: Cache) -> TokenFile:
    """The tokens of a split, made now or taken from the cache.

    Raises:
        UserError: A split that holds nothing to predict.
    """

    def build(folder: Path) -> None:
        TokenFile.write(folder, shown(corpus.documents(split), f"Tokenising {split}"), tokenizer)
        if corpus.left_out:
            documents = "document is" if corpus.left_out == 1 else "documents are"
            said = f"{corpus.source(source)}: {corpus.left_out:,} empty {documents} left out"
            print(said, file=sys.stderr)
            logging.getLogger("lit_transformer.run").info(said)

    source = split if split in corpus.splits() else "train"
    key = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, "corpus": corpus.fingerprint(split)}
    tokens = TokenFile.open(cache.entry("tokens", key, build))
    if tokens.statistics.targets == 0:
        raise UserError(f"{corpus.source(source)}: the {split} split holds no text to predict")
    return tokens
