"""Where text comes from: a corpus is documents in splits."""

import contextlib
import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from lit_transformer.errors import UserError


class Document(NamedTuple):
    """One document, and the name that error messages call it by (``file`` or ``file:row``)."""

    name: str
    text: str


def digest(*parts: str | bytes) -> str:
    """SHA-256 of a sequence of parts; where one part ends counts."""
    hashed = hashlib.sha256()
    for part in parts:
        content = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        hashed.update(len(content).to_bytes(8, "little") + content)
    return hashed.hexdigest()


class Corpus:
    """Documents in the splits ``train``, ``validation`` and, where there is one, ``test``.

    A subclass writes ``splits``, ``read`` and ``contents``. Where the source has no validation split, it is carved out
    of train: documents in the order of a hash go to validation until it holds ``validation_fraction`` of the
    characters; of a single document it is the tail. Equal documents fall on the same side.
    """

    validation_fraction: float = 0.05
    streaming: bool = False
    """Read while training, tokenised on the fly and never stored; ``buffer_size`` documents are shuffled at a time."""
    buffer_size: int = 1000
    cache_dir: str | None = None
    """Where a source may keep what it downloads; set by the DataModule."""

    left_out: int = 0
    """Empty documents that the last split that was read to its end has."""

    _carved: tuple[list[bool], int] | None = None

    def splits(self) -> Sequence[str]:
        """The splits that the source itself has."""
        raise NotImplementedError

    def read(self, split: str) -> Iterator[Document]:
        """Reads a split of the source, in a fixed order."""
        raise NotImplementedError

    def contents(self, split: str) -> str:
        """Fingerprint of everything that ``read`` would give, without tokenising it."""
        raise NotImplementedError

    def source(self, split: str) -> str:
        """What an error about a whole split calls it."""
        return f"{type(self).__name__}, split {split}"

    def has_split(self, split: str) -> bool:
        """Whether ``documents(split)`` can be read."""
        return split in self.splits() or (split == "validation" and self._carves)

    @property
    def _carves(self) -> bool:
        return not self.streaming and "validation" not in self.splits() and "train" in self.splits()

    def fingerprint(self, split: str) -> str:
        """Fingerprint of the documents of a split."""
        self._require(split)
        if split in ("train", "validation") and self._carves:
            return digest("carved", split, repr(self.validation_fraction), self.contents("train"))
        return digest(self.contents(split))

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, in a fixed order; empty ones are left out.

        Raises:
            UserError: No such split, or a source that cannot be read, with file and row.
        """
        self._require(split)
        if split not in ("train", "validation") or not self._carves:
            yield from self._not_empty(split)
            return
        inside, cut = self._carve()
        for held_out, document in zip(inside, self._not_empty("train"), strict=True):
            if len(inside) == 1:
                text = document.text[:cut] if split == "train" else document.text[cut:]
                yield Document(document.name, text)
            elif held_out == (split == "validation"):
                yield document

    def _require(self, split: str) -> None:
        if self.has_split(split):
            return
        name = type(self).__name__
        if split == "validation" and self.streaming:
            raise UserError(
                f"data.corpus: a streaming {name} needs a validation split of its own (none can be carved out of a "
                f"stream); the splits there are: {', '.join(self.splits())}"
            )
        raise UserError(f"data.corpus: {name} has no split {split!r}; the splits there are: {', '.join(self.splits())}")

    def _not_empty(self, split: str) -> Iterator[Document]:
        count = 0
        for document in self.read(split):
            if document.text:
                yield document
            else:
                count += 1
        self.left_out = count

    def _carve(self) -> tuple[list[bool], int]:
        """Whether each document of the source's train split is held out, and where a single one is cut."""
        if self._carved is not None:
            return self._carved
        sizes, hashes = [], []
        for document in self._not_empty("train"):
            sizes.append(len(document.text))
            hashes.append(digest(document.text))
        if not sizes:
            raise UserError(f"{self.source('train')}: holds no text")
        wanted = self.validation_fraction * sum(sizes)
        held_out: set[str] = set()
        filled = 0
        for key, size in sorted(zip(hashes, sizes, strict=True)):
            if filled < wanted:
                held_out.add(key)
                filled += size
        inside = [key in held_out for key in hashes]
        if len(sizes) > 1 and all(inside):
            raise UserError(
                f"{self.source('train')}: cannot carve a validation split out of {len(sizes)} documents; "
                "give one (data_files: {validation: ...})"
            )
        self._carved = inside, max(1, min(sizes[0] - 1, round(sizes[0] * (1 - self.validation_fraction))))
        return self._carved


class StdlibCorpus(Corpus):
    """The source text of the Python standard library that is running: no download, the same for a Python version.

    One document a file, about 600 files and 10 MB: tests are left out, and so are the generated tables in ``encodings``
    and ``pydoc_data``. A file is held out for validation by a hash of its name, whatever the version of Python.

    Args:
        validation_fraction: Share of the files that is held out.
    """

    SKIPPED = frozenset(
        {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings", "pydoc_data"}
    )

    def __init__(self, validation_fraction: float = 0.05) -> None:
        self.validation_fraction = checked_fraction(validation_fraction)
        self.folder = Path(sysconfig.get_path("stdlib"))

    def splits(self) -> Sequence[str]:
        """Train and validation."""
        return ("train", "validation")

    @cached_property
    def files(self) -> list[Path]:
        """The source files, relative to the library's folder, sorted by name."""
        found = []
        for folder, subfolders, names in os.walk(self.folder):
            subfolders[:] = [name for name in subfolders if name not in self.SKIPPED]
            found += [Path(folder, name).relative_to(self.folder) for name in names if name.endswith(".py")]
        if not found:
            raise UserError(f"data.corpus: no source files of the standard library in {self.folder}; use FilesCorpus")
        return sorted(found, key=Path.as_posix)

    def read(self, split: str) -> Iterator[Document]:
        """One document a file, newlines normalised."""
        for path in self.files:
            name = path.as_posix()
            held_out = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < self.validation_fraction * 2**32
            if held_out == (split == "validation"):
                content = (self.folder / path).read_bytes()
                with contextlib.suppress(UnicodeDecodeError):  # an older coding: a handful of files, none in 3.11
                    yield Document(name, content.decode("utf-8").replace("\r\n", "\n"))

    def contents(self, split: str) -> str:
        """Names and texts of the files."""
        return _library_contents(self.folder, split, self.validation_fraction)


@lru_cache
def _library_contents(folder: Path, split: str, fraction: float) -> str:
    """Read once by a process: the library that is running does not change, and a study asks for each of its steps."""
    corpus = StdlibCorpus(fraction)
    corpus.folder = folder
    return digest("stdlib", *(part for document in corpus.read(split) for part in document))


def checked_fraction(fraction: float) -> float:
    """The fraction, if it leaves something on both sides."""
    if not 0 < fraction < 1:
        raise UserError(f"data.corpus.validation_fraction: is {fraction}, must lie between 0 and 1")
    return fraction
