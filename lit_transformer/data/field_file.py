"""The texts of the rows of a split as token ids on disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lit_transformer.data.corpora import Document
from lit_transformer.data.token_file import Ints, encoded
from lit_transformer.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class FieldFile:
    """Token ids of the K texts of each row, one after the other, without special ids.

    Args:
        folder: Where it lies.
        tokens: (M,) uint16 or uint32, read from the disk as needed.
        starts: (N * K + 1,) where each text starts in ``tokens``.
        fields: Number K of texts in a row.
    """

    folder: Path
    tokens: NDArray[np.unsignedinteger[Any]]
    starts: Ints
    fields: int

    def __reduce__(self) -> tuple[Any, ...]:
        return FieldFile.open, (self.folder, self.fields)  # a worker process opens the file

    @classmethod
    def open(cls, folder: Path, fields: int) -> Self:
        """Opens what ``write`` wrote."""
        starts = np.load(folder / "starts.npy")
        tokens = np.load(folder / "tokens.npy", mmap_mode="r" if starts[-1] else None)
        return cls(folder, np.asarray(tokens), starts, fields)

    @staticmethod
    def write(folder: Path, texts: Iterable[Document], tokenizer: Tokenizer) -> None:
        """Tokenises texts, K a row, into a folder."""
        dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
        pieces, lengths = [], []
        for _, ids in encoded(texts, tokenizer):
            pieces.append(np.asarray(ids, dtype=dtype))
            lengths.append(len(ids))
        np.save(folder / "tokens.npy", np.concatenate(pieces) if pieces else np.zeros(0, dtype))
        np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        return (len(self.starts) - 1) // self.fields

    @property
    def lengths(self) -> Ints:
        """(N, K) tokens of each text."""
        return np.diff(self.starts).reshape(-1, self.fields)

    def texts(self, row: int) -> list[Ints]:
        """The K texts of a row."""
        first = row * self.fields
        bounds = self.starts[first : first + self.fields + 1]
        return [self.tokens[a:b].astype(np.int64) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
