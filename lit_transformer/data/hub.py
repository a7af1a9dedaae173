"""Corpora that ``datasets.load_dataset`` finds by name."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lit_transformer.data.corpora import Corpus, Document, checked_fraction, digest
from lit_transformer.data.readers import Row
from lit_transformer.errors import UserError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the progress bars and warnings of ``datasets``; ours is the one shown."""
    import datasets

    verbosity, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


def load(shown: str, path: str, cache_dir: str | None, **arguments: Any) -> Any:
    """``datasets.load_dataset`` with its errors as one line; ``shown`` is what the user calls the source."""
    import datasets

    folder = None if cache_dir is None else str(Path(cache_dir) / "datasets")
    with quiet():
        try:
            return datasets.load_dataset(path, cache_dir=folder, **arguments)
        except Exception as error:  # load_dataset raises whatever its builders raise
            cause = error.__cause__ or error
            lines = str(cause).strip().splitlines() or [type(cause).__name__]
            raise UserError(f"{shown}: cannot be loaded by datasets: {type(cause).__name__}: {lines[0]}") from None


class HubCorpus(Corpus):
    """A data set by its name on the Hugging Face hub, or a folder that ``datasets.load_dataset`` understands.

    Downloads go into the cache folder of the DataModule. Documents are rows.

    Args:
        path: Name on the hub (``user/name``) or a folder.
        name: Configuration of the data set.
        revision: Commit, tag or branch; a commit keeps a recipe reproducible.
        data_files: Files of the repository by split, where it has no configuration.
        field: Column that holds the text.
        validation_fraction: Share of the characters held out when there is no validation split.
        streaming: Read over the network while training; nothing is stored.
        buffer_size: Number of documents that a stream is shuffled within; 1 keeps its order.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        revision: str | None = None,
        data_files: dict[str, str | list[str]] | None = None,
        field: str = "text",
        validation_fraction: float = 0.05,
        streaming: bool = False,
        buffer_size: int = 1000,
    ) -> None:
        if buffer_size < 1:
            raise UserError(f"data.corpus.buffer_size: is {buffer_size}, must be at least 1")
        self.path = path
        self.name = name
        self.revision = revision
        self.data_files = data_files
        self.field = field
        self.validation_fraction = checked_fraction(validation_fraction)
        self.streaming = streaming
        self.buffer_size = buffer_size

    @cached_property
    def _splits(self) -> Any:
        return load(
            self.path,
            self.path,
            self.cache_dir,
            name=self.name,
            revision=self.revision,
            data_files=self.data_files,
            streaming=self.streaming,
        )

    def splits(self) -> Sequence[str]:
        """The splits of the data set that have the names used here."""
        return tuple(split for split in ("train", "validation", "test") if split in self._splits)

    def read(self, split: str) -> Iterator[Document]:
        """The rows of a split, in their order."""
        columns = self._splits[split].column_names
        if columns is not None and self.field not in columns:
            raise UserError(f"{self.path}: no field {self.field!r}; the fields there are: {', '.join(columns)}")
        for number, row in enumerate(self._splits[split]):
            where = f"{self.path}, {split} row {number}"
            yield Document(where, Row(where, row).text(self.field))

    def contents(self, split: str) -> str:
        """The fingerprint that ``datasets`` gives; of a stream only its name and revision are known."""
        dataset = self._splits[split]
        known = repr((self.name, self.revision, self.data_files)) if self.streaming else dataset._fingerprint
        return digest("hub", self.path, split, self.field, known)
