"""Sentences and their translations, line by line in two files."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from lit_transformer.data.corpora import checked_fraction, digest
from lit_transformer.data.files import file_digest
from lit_transformer.data.readers import Row, guarded, numbered_lines
from lit_transformer.data.rows import RowCorpus
from lit_transformer.errors import UserError

SPLITS = ("train", "validation", "test")


class ParallelFiles(RowCorpus):
    """Two text files, compressed or not, whose lines translate each other: ``{train: [train.en, train.de], ...}``.

    Fields: ``source`` (the first file) and ``target``.

    Args:
        data_files: The two files of each split, the source first.
        data_dir: Folder that relative file names start from. Left out: the current one.
        validation_fraction: Share of the train lines held out when no validation files are given.
    """

    def __init__(
        self, data_files: Mapping[str, Sequence[str]], data_dir: str | None = None, validation_fraction: float = 0.05
    ) -> None:
        folder = Path(data_dir or ".").expanduser()
        self.validation_fraction = checked_fraction(validation_fraction)
        self.files: dict[str, tuple[Path, Path]] = {}
        for split, names in data_files.items():
            if split not in SPLITS:
                raise UserError(f"data.corpus.data_files: unknown split {split!r}; valid: {', '.join(SPLITS)}")
            if isinstance(names, str) or len(names) != 2:
                raise UserError(f"data.corpus.data_files.{split}: needs two files, the source and the target")
            self.files[split] = folder / names[0], folder / names[1]

    def splits(self) -> Sequence[str]:
        """The splits that have files."""
        return tuple(self.files)

    def source(self, split: str) -> str:
        """Both files."""
        return " and ".join(map(str, self.files.get(split) or self.files["train"]))

    def read(self, split: str) -> Iterator[Row]:
        """Line by line.

        Raises:
            UserError: One file has more lines than the other.
        """
        first, second = self.files[split]
        sources, targets = _lines(first), _lines(second)
        for count, (source, target) in enumerate(zip_longest(sources, targets), 1):
            if source is None or target is None:
                longer = count + sum(1 for _ in (targets if source is None else sources))
                counts = (count - 1, longer) if source is None else (longer, count - 1)
                raise UserError(
                    f"{first} has {counts[0]:,} lines and {second} has {counts[1]:,}: parallel files must have as many"
                )
            yield Row(f"{self.source(split)}, line {count}", {"source": source, "target": target})

    def contents(self, split: str) -> str:
        """The bytes of both files."""
        return digest("parallel files", *map(file_digest, self.files[split]))


def _lines(path: Path) -> Iterator[str]:
    return guarded(path, (line for _, line in numbered_lines(path)))
