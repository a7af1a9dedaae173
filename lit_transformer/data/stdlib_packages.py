"""Labelled texts that need no download: which package of the Python standard library is this snippet from?"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

from lit_transformer.data.corpora import StdlibCorpus, checked_fraction, digest
from lit_transformer.data.readers import Row
from lit_transformer.data.rows import RowCorpus
from lit_transformer.errors import UserError

SPLITS = ("train", "validation", "test")


class StdlibPackages(RowCorpus):
    """Snippets of the source of the standard library that is running, labelled with their package: fields ``text``,
    ``label`` and ``file``; the same for a Python version.

    All snippets of a file are in one split, so none is recognised by its neighbours. Files are dealt out to the splits
    by a hash of their names, package by package; packages with few files are left out. Of each package and split the
    same number of snippets is taken at most, chosen by hash, so that no package is the answer to most questions.

    Args:
        lines: Number of lines in a snippet, empty ones not counted.
        least_files: Fewest files of a package.
        most_snippets: Most train snippets of a package.
        held_out: Share of the files of a package that is held out for validation, and again for the test.
    """

    def __init__(
        self, lines: int = 8, least_files: int = 10, most_snippets: int = 1000, held_out: float = 0.15
    ) -> None:
        for name, value, least in (
            ("lines", lines, 1),
            ("least_files", least_files, 3),
            ("most_snippets", most_snippets, 1),
        ):
            if value < least:
                raise UserError(f"data.corpus.{name}: is {value}, must be at least {least}")
        self.lines = lines
        self.least_files = least_files
        self.most_snippets = most_snippets
        self.held_out = checked_fraction(held_out)

    def splits(self) -> Sequence[str]:
        """Train, validation and test."""
        return SPLITS

    @cached_property
    def _snippets(self) -> dict[str, list[Row]]:
        library = StdlibCorpus()
        files: dict[str, list[tuple[str, str]]] = {}
        for split in library.splits():
            for name, text in library.read(split):
                if "/" in name:
                    files.setdefault(name.split("/")[0], []).append((name, text))
        rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
        for package, members in sorted(files.items()):
            if len(members) >= self.least_files:
                for split, found in self._dealt(package, members).items():
                    most = self.most_snippets if split == "train" else math.ceil(self.most_snippets * self.held_out)
                    kept = {row.where for row in sorted(found, key=lambda row: _hash(row.where))[:most]}
                    rows[split] += [row for row in found if row.where in kept]
        if not rows["train"]:
            raise UserError(f"data.corpus.least_files: no package has {self.least_files} files; lower it")
        return rows

    def _dealt(self, package: str, files: list[tuple[str, str]]) -> dict[str, list[Row]]:
        """The snippets of a package: whole files go to the held-out splits until these are full."""
        pieces = [list(self._cut(package, *file)) for file in sorted(files, key=lambda file: _hash(file[0]))]
        wanted = self.held_out * sum(map(len, pieces))
        dealt: dict[str, list[Row]] = {split: [] for split in SPLITS}
        for found in pieces:
            split = next((name for name in SPLITS[1:] if len(dealt[name]) < wanted), "train")
            dealt[split] += found
        return dealt

    def _cut(self, package: str, name: str, text: str) -> Iterator[Row]:
        numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        for start in range(0, len(numbered) - self.lines + 1, self.lines):
            piece = numbered[start : start + self.lines]
            values = {"text": "\n".join(line for _, line in piece), "label": package, "file": name}
            yield Row(f"{name}:{piece[0][0]}", values)

    def read(self, split: str) -> Iterator[Row]:
        """The snippets of a split, in the order of packages and files."""
        yield from self._snippets[split]

    def contents(self, split: str) -> str:
        """Places and texts of the snippets."""
        return digest(
            "stdlib packages", *(part for row in self.read(split) for part in (row.where, row.values["text"]))
        )


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
