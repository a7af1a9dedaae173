"""Training on a stream: documents are tokenised as they come and packed into full blocks."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lit_transformer.data.batch import LanguageBatch
from lit_transformer.data.corpora import Corpus, Document
from lit_transformer.data.loaders import ALONE, EndlessLoader, Share
from lit_transformer.data.packing import seeded
from lit_transformer.data.token_file import Ints, enclosed, encoded
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.errors import UserError

EPOCH_WINDOWS = 1000
"""A stream does not know its length: an epoch of the Trainer is this many optimizer steps."""


def shuffled(corpus: Corpus, epoch: int, seed: int) -> Iterator[Document]:
    """A pass over train, shuffled within ``corpus.buffer_size`` documents; a pure function of its arguments."""
    choose = seeded(seed, epoch, 2)
    buffer: list[Document] = []
    for document in corpus.documents("train"):
        if len(buffer) < corpus.buffer_size:
            buffer.append(document)
        else:
            place = choose.randint(len(buffer))
            yield buffer[place]
            buffer[place] = document
    yield from (buffer[place] for place in choose.permutation(len(buffer)))


class BlockStream:
    """Blocks of a stream of documents, pass after pass; every block is full.

    Args:
        corpus: The documents.
        tokenizer: What makes tokens of them.
        block_size: Number T of positions in a block.
        seed: Decides the order within the buffer.
    """

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, block_size: int, seed: int) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.block_size = block_size
        self.seed = seed
        self.go_to(epoch=0, documents=0, offset=0)

    @property
    def place(self) -> dict[str, int]:
        """The pass, the number of its documents that are used up, and the targets used of the next one."""
        return {"epoch": self._epoch, "documents": self._documents, "offset": self._offset}

    def go_to(self, epoch: int, documents: int, offset: int) -> None:
        """Goes to a place. The documents of its pass before it are read over, not tokenised."""
        self._epoch, self._documents, self._offset = epoch, documents, offset
        self._pass = shuffled(self.corpus, epoch, self.seed)
        for _ in range(documents):
            next(self._pass)
        self._current: Ints | None = None

    def _document(self) -> Ints:
        """The tokens of the document at the place."""
        while self._current is None:
            document = next(self._pass, None)
            if document is None:
                if self._documents == 0:
                    raise UserError(f"{self.corpus.source('train')}: holds no text")
                self.go_to(self._epoch + 1, 0, 0)
            else:
                ids = next(encoded([document], self.tokenizer))[1]
                self._current = np.array(enclosed(ids, self.tokenizer), dtype=np.int64)
        return self._current

    def row(self) -> tuple[Ints, Ints, Ints, Ints]:
        """(T,) tokens, targets, positions and documents of the next block."""
        pieces: list[tuple[Ints, Ints]] = []
        missing, seen = self.block_size, 0
        while missing:
            document = self._document()
            taken = min(missing, len(document) - 1 - self._offset)
            if taken > 0:
                piece = document[self._offset : self._offset + taken + 1]
                pieces.append((piece[:-1], piece[1:]))
                missing -= taken
                self._offset += taken
                seen = 0
            elif (seen := seen + 1) > 1_000_000:
                raise UserError(f"{self.corpus.source('train')}: a million documents without a token to predict")
            if self._offset >= len(document) - 1:
                self._current, self._offset = None, 0
                self._documents += 1
        lengths = [len(tokens) for tokens, _ in pieces]
        return (
            np.concatenate([tokens for tokens, _ in pieces]),
            np.concatenate([targets for _, targets in pieces]),
            np.concatenate([np.arange(length) for length in lengths]),
            np.repeat(np.arange(len(lengths)), lengths),
        )


class StreamLoader(EndlessLoader):
    """Blocks of a stream. Every rank reads and tokenises all of it and keeps its own rows, so the order does not depend
    on their number. A resumed run reads over what its pass has used, without tokenising it.

    Args:
        blocks: The samples.
        batch_size: Number of rows on each rank.
        share: The part of this process.
    """

    def __init__(self, blocks: BlockStream, batch_size: int, share: Share = ALONE) -> None:
        super().__init__(batch_size, share)
        self.blocks = blocks

    @property
    def epoch_windows(self) -> int:
        """A fixed number: a stream does not know its length."""
        return EPOCH_WINDOWS

    @property
    def identity(self) -> dict[str, int | str]:
        """The stream, its tokenizer, and how it is shuffled and cut."""
        return {
            "corpus": self.blocks.corpus.fingerprint("train"),
            "tokenizer": self.blocks.tokenizer.fingerprint,
            "block_size": self.blocks.block_size,
            "corpus.buffer_size": self.blocks.corpus.buffer_size,
            "seed": self.blocks.seed,
        }

    def read(self, first: int, end: int) -> Iterator[LanguageBatch]:
        """Packs every row of all ranks and keeps this one's."""
        mine = slice(self.share.rank * self.batch_size, (self.share.rank + 1) * self.batch_size)
        for batch in range(first, end, self.global_batch):
            rows = [self.blocks.row() for _ in range(self.global_batch)][mine]
            tokens, targets, positions, documents = (
                torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True)
            )
            yield LanguageBatch(
                tokens=tokens,
                targets=targets,
                positions=positions,
                ids=torch.arange(batch, batch + self.global_batch)[mine],
                window_tokens=torch.tensor(self.window * self.blocks.block_size),
                documents=documents if bool(documents.any()) else None,
            )

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream beside the number of samples."""
        return {**super().state_dict(), "place": self.blocks.place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after the samples delivered before."""
        super().load_state_dict(state)
        self.blocks.go_to(**state["place"])
