"""Corpora in local files."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from lit_transformer.data.corpora import Corpus, Document, checked_fraction, digest
from lit_transformer.data.readers import (
    files_in,
    format_of,
    guarded,
    read_csv,
    read_json,
    read_text,
    read_with_datasets,
)
from lit_transformer.errors import UserError

SampleBy = Literal["document", "line", "paragraph", "split"]
DataFiles = dict[str, str | list[str]] | list[str] | str
SPLITS = ("train", "validation", "test")


def files_by_split(data_files: DataFiles | None, data_dir: Path) -> dict[str, list[Path]]:
    """The files of each split.

    Args:
        data_files: Files or patterns by split; a list or a single name is train. None: those named after the splits.
        data_dir: Folder that relative names start from.

    Raises:
        UserError: A file that is not there or empty, a split with another name, a folder without ``train.*``.
    """
    if data_files is None:
        if not data_dir.is_dir():
            raise UserError(f"data.corpus.data_dir: {data_dir} is not a folder")
        found = {split: _checked(split, sorted(data_dir.glob(f"{split}.*"))) for split in SPLITS}
        if not found["train"]:
            raise UserError(f"data.corpus.data_dir: no file train.* in {data_dir}; name them by data_files")
        return {split: paths for split, paths in found.items() if paths}
    given = data_files if isinstance(data_files, dict) else {"train": data_files}
    unknown = [split for split in given if split not in SPLITS]
    if unknown:
        raise UserError(f"data.corpus.data_files: unknown split {unknown[0]!r}; valid: {', '.join(SPLITS)}")
    return {
        split: [
            path for name in ([names] if isinstance(names, str) else names) for path in _find(split, name, data_dir)
        ]
        for split, names in given.items()
    }


def _find(split: str, name: str, data_dir: Path) -> list[Path]:
    return _checked(split, files_in(name, data_dir))


def _checked(split: str, paths: list[Path]) -> list[Path]:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such data file (data.corpus.data_files, {split})")
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{path}: empty data file (data.corpus.data_files, {split})")
    return paths


def file_digest(path: Path) -> str:
    """SHA-256 of the bytes of a file."""

    def content() -> Iterator[str]:
        with path.open("rb") as file:
            yield hashlib.file_digest(file, "sha256").hexdigest()

    return next(guarded(path, content()))


class FilesCorpus(Corpus):
    """Local files: plain text, JSON lines, CSV, Parquet, compressed or not; the arguments are ``load_dataset``'s.

    Text, JSON and CSV are read line by line here, so that a fault is named by file and line; other formats by
    ``datasets``. Lines end in LF: CRLF is turned into it.

    Args:
        data_files: Files or patterns by split, for example ``{train: train.txt, validation: [a.txt, b.txt]}``; a list
            or a single name is train. Left out: ``train.*``, ``validation.*`` and ``test.*`` in ``data_dir``.
        data_dir: Folder that relative file names start from. Left out: the current one.
        path: Format, under the name of its ``datasets`` builder: ``text``, ``json``, ``csv``, ``parquet``, ... Left
            out: told by the suffix.
        field: Name of the field or column that holds the text.
        sample_by: What a document is in plain text: a file, a line, a paragraph, or ``split``: all files of a split
            joined without a separator.
        validation_fraction: Share of the characters held out when no validation files are given.
        streaming: Tokenise while training instead of preparing a token file.
        buffer_size: Number of documents that a stream is shuffled within; 1 keeps its order.
    """

    def __init__(
        self,
        data_files: dict[str, str | list[str]] | list[str] | str | None = None,
        data_dir: str | None = None,
        path: str | None = None,
        field: str = "text",
        sample_by: SampleBy = "document",
        validation_fraction: float = 0.05,
        streaming: bool = False,
        buffer_size: int = 1000,
    ) -> None:
        if data_files is None and data_dir is None:
            raise UserError("data.corpus: FilesCorpus needs data_files or data_dir")
        if buffer_size < 1:
            raise UserError(f"data.corpus.buffer_size: is {buffer_size}, must be at least 1")
        self.data_files = data_files
        self.data_dir = Path(data_dir or ".").expanduser()
        self.path = path
        self.field = field
        self.sample_by = sample_by
        self.validation_fraction = checked_fraction(validation_fraction)
        self.streaming = streaming
        self.buffer_size = buffer_size

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """The files of each split."""
        return files_by_split(self.data_files, self.data_dir)

    def source(self, split: str) -> str:
        """The first file, and how many more."""
        first, *more = self.files[split]
        return f"{first} and {len(more)} more" if more else str(first)

    def splits(self) -> Sequence[str]:
        """The splits that have files."""
        return tuple(self.files)

    def read(self, split: str) -> Iterator[Document]:
        """The documents of the files of a split, in the order given."""
        documents = (document for path in self.files[split] for document in guarded(path, self._read_file(path)))
        if self.sample_by != "split":
            yield from documents
            return
        whole = list(documents)
        yield Document(
            f"{split} split ({whole[0].name} ...)" if len(whole) > 1 else whole[0].name,
            "".join(document.text for document in whole),
        )

    def _read_file(self, path: Path) -> Iterator[Document]:
        builder = self.path or format_of(path)
        if builder == "text":
            return read_text(path, "document" if self.sample_by == "split" else self.sample_by)
        if builder == "json":
            return read_json(path, self.field)
        if builder == "csv":
            return read_csv(path, self.field)
        return read_with_datasets(builder, path, self.field, self.cache_dir)

    def contents(self, split: str) -> str:
        """The bytes of the files and how they are read; their names do not count."""
        return digest(
            "files",
            self.sample_by,
            self.field,
            *(part for path in self.files[split] for part in (self.path or format_of(path), file_digest(path))),
        )
