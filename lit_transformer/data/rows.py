"""Data sets of rows with named fields: labelled texts, pairs of sentences, prompts with their responses."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lit_transformer.data.corpora import checked_fraction, digest
from lit_transformer.data.files import DataFiles, file_digest, files_by_split
from lit_transformer.data.hub import load
from lit_transformer.data.readers import Row, format_of, rows_of
from lit_transformer.errors import UserError

__all__ = ["FileRows", "HubRows", "Row", "RowCorpus"]


class RowCorpus:
    """Rows in the splits ``train``, ``validation`` and, where there is one, ``test``.

    A subclass writes ``splits``, ``read`` and ``contents``. Where the source has no validation split, the rows with
    the smallest hashes of their content are taken out of train for it: the same ones on every machine, whatever the
    order of the rows. Equal rows fall on the same side.
    """

    validation_fraction: float = 0.05
    cache_dir: str | None = None
    """Where a source may keep what it downloads; set by the DataModule."""

    _held_out: frozenset[str] | None = None

    def splits(self) -> Sequence[str]:
        """The splits that the source itself has."""
        raise NotImplementedError

    def read(self, split: str) -> Iterator[Row]:
        """Reads a split of the source, in a fixed order."""
        raise NotImplementedError

    def contents(self, split: str) -> str:
        """Fingerprint of everything that ``read`` would give."""
        raise NotImplementedError

    def source(self, split: str) -> str:
        """What an error about a whole split calls it."""
        return f"{type(self).__name__}, split {split}"

    def has_split(self, split: str) -> bool:
        """Whether ``rows(split)`` can be read."""
        return split in self.splits() or (split == "validation" and self._carves)

    @property
    def _carves(self) -> bool:
        return "validation" not in self.splits() and "train" in self.splits()

    def fingerprint(self, split: str) -> str:
        """Fingerprint of the rows of a split: the key of what is made of them."""
        self._require(split)
        if split in ("train", "validation") and self._carves:
            return digest("carved", split, repr(self.validation_fraction), self.contents("train"))
        return digest(self.contents(split))

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of a split, in a fixed order.

        Raises:
            UserError: No such split, no rows in it, or a source that cannot be read, with file and row.
        """
        self._require(split)
        if split in ("train", "validation") and self._carves:
            held_out = self._carve()
            rows: Iterator[Row] = (
                row for row in self.read("train") if (row_digest(row) in held_out) == (split == "validation")
            )
        else:
            rows = self.read(split)
        first = next(rows, None)
        if first is None:
            raise UserError(f"{self.source(split)}: holds no rows")
        yield first
        yield from rows

    def _require(self, split: str) -> None:
        if not self.has_split(split):
            there = ", ".join(self.splits()) or "none"
            raise UserError(f"data.corpus: {type(self).__name__} has no split {split!r}; the splits there are: {there}")

    def _carve(self) -> frozenset[str]:
        """Hashes of the rows of the source's train split that are held out."""
        if self._held_out is None:
            hashes = sorted(row_digest(row) for row in self.read("train"))
            if not hashes:
                raise UserError(f"{self.source('train')}: holds no rows")
            self._held_out = frozenset(hashes[: math.ceil(self.validation_fraction * len(hashes))])
            if len(self._held_out) == len(set(hashes)):
                raise UserError(
                    f"{self.source('train')}: cannot carve a validation split out of {len(hashes)} rows; "
                    "give one (data_files: {validation: ...})"
                )
        return self._held_out


def row_digest(row: Row) -> str:
    """SHA-256 of the values of a row; its place does not count."""
    return digest(json.dumps(row.values, sort_keys=True, default=str))


class FileRows(RowCorpus):
    """Local files: JSON lines, CSV, TSV, Parquet, compressed or not; the arguments are ``load_dataset``'s.

    JSON and CSV are read row by row here, so that a fault is named by file and line; other formats by ``datasets``.
    A line of plain text is a row with the one field ``text``.

    Args:
        data_files: Files or patterns by split, for example ``{train: train.csv, validation: [a.csv, b.csv]}``; a list
            or a single name is train. Left out: ``train.*``, ``validation.*`` and ``test.*`` in ``data_dir``.
        data_dir: Folder that relative file names start from. Left out: the current one.
        path: Format, under the name of its ``datasets`` builder: ``json``, ``csv``, ``parquet``, ... Left out: told by
            the suffix.
        validation_fraction: Share of the train rows held out when no validation files are given.
    """

    def __init__(
        self,
        data_files: dict[str, str | list[str]] | list[str] | str | None = None,
        data_dir: str | None = None,
        path: str | None = None,
        validation_fraction: float = 0.05,
    ) -> None:
        if data_files is None and data_dir is None:
            raise UserError("data.corpus: FileRows needs data_files or data_dir")
        self.data_files: DataFiles | None = data_files
        self.data_dir = Path(data_dir or ".").expanduser()
        self.path = path
        self.validation_fraction = checked_fraction(validation_fraction)

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """The files of each split."""
        return files_by_split(self.data_files, self.data_dir)

    def splits(self) -> Sequence[str]:
        """The splits that have files."""
        return tuple(self.files)

    def source(self, split: str) -> str:
        """The first file, and how many more."""
        paths = self.files.get(split) or self.files["train"]
        return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else str(paths[0])

    def read(self, split: str) -> Iterator[Row]:
        """The rows of the files of a split, in the order given."""
        for path in self.files[split]:
            yield from rows_of(path, self.path or format_of(path), self.cache_dir)

    def contents(self, split: str) -> str:
        """The bytes of the files and how they are read; their names do not count."""
        return digest(
            "file rows",
            *(part for path in self.files[split] for part in (self.path or format_of(path), file_digest(path))),
        )


class HubRows(RowCorpus):
    """A data set by its name on the Hugging Face hub, or the same data in a local folder.

    Downloads go into the cache folder of the DataModule. Labels that the data set stores as numbers become their names.

    Args:
        path: Name on the hub (``user/name``), or a folder that ``datasets.load_dataset`` understands.
        name: Configuration of the data set.
        revision: Commit, tag or branch; a commit keeps a recipe reproducible.
        data_files: Files of the repository by split, where it has no configuration.
        rename: Fields that get another name, as ``{theirs: ours}``, in place of what has that name already.
        folder: Local folder with files ``train.*``, ``validation.*``, ``test.*`` that is read instead of the hub; their
            fields have the new names already.
        validation_fraction: Share of the train rows held out when there is no validation split.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        revision: str | None = None,
        data_files: dict[str, str | list[str]] | None = None,
        rename: dict[str, str] | None = None,
        folder: str | None = None,
        validation_fraction: float = 0.05,
    ) -> None:
        self.path = path
        self.name = name
        self.revision = revision
        self.data_files = data_files
        self.rename = rename or {}
        self.validation_fraction = checked_fraction(validation_fraction)
        self.local = None if folder is None else FileRows(data_dir=folder, validation_fraction=validation_fraction)

    @cached_property
    def _splits(self) -> Any:
        return load(
            self.path, self.path, self.cache_dir, name=self.name, revision=self.revision, data_files=self.data_files
        )

    def splits(self) -> Sequence[str]:
        """The splits of the data set that have the names used here."""
        if self.local is not None:
            return self.local.splits()
        return tuple(split for split in ("train", "validation", "test") if split in self._splits)

    def source(self, split: str) -> str:
        """The name on the hub, or the local file."""
        return f"{self.path}, split {split}" if self.local is None else self.local.source(split)

    def read(self, split: str) -> Iterator[Row]:
        """The rows of a split, in their order."""
        if self.local is not None:
            yield from self.local.read(split)
            return
        dataset = self._splits[split]
        for field in self.rename:
            if field not in dataset.column_names:
                raise UserError(f"{self.path}: no field {field!r}; there are: {', '.join(dataset.column_names)}")
        names = {field: kind.names for field, kind in dataset.features.items() if hasattr(kind, "int2str")}
        for number, row in enumerate(dataset):
            for field, labels in names.items():
                # -1 is how the hub writes a label that is kept secret
                row[field] = labels[row[field]] if row[field] is not None and row[field] >= 0 else None
            kept = {field: value for field, value in row.items() if field not in self.rename}
            values = kept | {ours: row[theirs] for theirs, ours in self.rename.items()}
            yield Row(f"{self.path}, {split} row {number}", values)

    def contents(self, split: str) -> str:
        """The fingerprint that ``datasets`` gives, or that of the local files."""
        if self.local is not None:
            return self.local.contents(split)
        return digest("hub rows", self.path, split, repr(sorted(self.rename.items())), self._splits[split]._fingerprint)
