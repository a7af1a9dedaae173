"""What a step of training or evaluation is handed."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

IGNORED = -100
"""The target of a position that nothing is predicted at."""

PADDING = -1
"""The document of a position that holds no token, and the id of a row that holds no sample."""


@dataclass
class Batch:
    """Base of the batches. Integers only, because Lightning's ``*-true`` precisions cast every float.

    Args:
        tokens: (B, T) int64, what the network (its decoder, where it has two halves) reads.
        positions: (B, T) int64, restart at 0 at the start of a row and of each document in it.
        ids: (B,) int64, the number of each sample, unique within a run; -1 is a row of padding.
        window_tokens: () int64, number of targets in the whole accumulation window over all ranks, which the loss is
            divided by; in evaluation the number of targets of this batch.
    """

    tokens: Int64[Tensor, "B T"]
    positions: Int64[Tensor, "B T"]
    ids: Int64[Tensor, " B"]
    window_tokens: Int64[Tensor, ""]

    @property
    def inputs(self) -> dict[str, Any]:
        """What the network is called with: ``network(**batch.inputs)``."""
        raise NotImplementedError

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """This batch on another device; the copy overlaps with computing where the memory is pinned."""
        kwargs.setdefault("non_blocking", torch.device(device).type == "cuda")
        return self._map(lambda tensor: tensor.to(device, **kwargs))

    def pin_memory(self) -> Self:
        """This batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> Self:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in tensors.items() if value is not None})

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(kw_only=True)
class TextBatch(Batch):
    """Tokens of one text a row, or of several that cannot see each other.

    Args:
        documents: (B, T) int64, counts the documents of a row from 0; -1 is padding. None when every row is a piece of
            one document without padding, so that the network's mask says it all.
    """

    documents: Int64[Tensor, "B T"] | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """See the base class; left out, positions are cheaper: one row for all."""
        positions = None if self.documents is None else self.positions
        return {"tokens": self.tokens, "documents": self.documents, "positions": positions}


@dataclass(kw_only=True)
class LanguageBatch(TextBatch):
    """Tokens, and what is to be predicted at each of them.

    Args:
        targets: (B, T) int64: of a decoder the token that follows, of a masked language model the token that was
            hidden; -100 where nothing is predicted.
    """

    targets: Int64[Tensor, "B T"]

    @property
    def target_count(self) -> Int64[Tensor, ""]:
        """() int64, number of targets in this batch."""
        return (self.targets != IGNORED).sum()


@dataclass(kw_only=True)
class PrefixBatch(LanguageBatch):
    """A text whose beginning is given, and is read in both directions by a network that can.

    Args:
        prefix: (B, T) bool, True for the given part.
    """

    prefix: Bool[Tensor, "B T"]

    @property
    def inputs(self) -> dict[str, Any]:
        """See the base class."""
        return {**super().inputs, "prefix": self.prefix}


@dataclass(kw_only=True)
class PairBatch(LanguageBatch):
    """A source for the encoder, and the decoder's tokens and targets.

    Args:
        source: (B, S) int64.
        source_documents: (B, S) int64, -1 is padding; packed rows count the same documents as ``documents``. None:
            no padding.
    """

    source: Int64[Tensor, "B S"]
    source_documents: Int64[Tensor, "B S"] | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """See the base class."""
        return {**super().inputs, "source": self.source, "source_documents": self.source_documents}


@dataclass(kw_only=True)
class LabelBatch(TextBatch):
    """Texts and the class of each.

    Args:
        labels: (B,) int64; -100 for a row of padding.
        types: (B, T) int64, token types (which of two sentences); None: the network has none.
        source: (B, S) int64, what an encoder reads where the network has two halves; None: it has one.
        source_documents: (B, S) int64, -1 is padding.
    """

    labels: Int64[Tensor, " B"]
    types: Int64[Tensor, "B T"] | None = None
    source: Int64[Tensor, "B S"] | None = None
    source_documents: Int64[Tensor, "B S"] | None = None

    @property
    def target_count(self) -> Int64[Tensor, ""]:
        """() int64, number of labelled rows in this batch."""
        return (self.labels != IGNORED).sum()

    @property
    def inputs(self) -> dict[str, Any]:
        """See the base class."""
        given = {"types": self.types, "source": self.source, "source_documents": self.source_documents}
        return {**super().inputs, **{name: value for name, value in given.items() if value is not None}}
