"""What a step of training or evaluation is handed."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Int64
from torch import Tensor

IGNORED = -100
"""The target of a position that nothing is predicted at."""

PADDING = -1
"""The document of a position that holds no token, and the id of a row that holds no sample."""


@dataclass
class LanguageBatch:
    """A batch of blocks of text. Integers only, because Lightning's ``*-true`` precisions cast every float.

    Args:
        tokens: (B, T) int64, what the network reads.
        targets: (B, T) int64, the token that follows each one; -100 where nothing is predicted.
        positions: (B, T) int64, restart at 0 at the start of a row and of each document in it.
        ids: (B,) int64, the number of each sample, unique within a run; -1 is a row of padding.
        window_tokens: () int64, number of targets in the whole accumulation window over all ranks, which the loss is
            divided by; in evaluation the number of targets of this batch.
        documents: (B, T) int64, counts the documents of a row from 0; -1 is padding. None when every row is a piece of
            one document without padding, so that a causal mask says it all.
    """

    tokens: Int64[Tensor, "B T"]
    targets: Int64[Tensor, "B T"]
    positions: Int64[Tensor, "B T"]
    ids: Int64[Tensor, " B"]
    window_tokens: Int64[Tensor, ""]
    documents: Int64[Tensor, "B T"] | None = None

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

    @property
    def target_count(self) -> Int64[Tensor, ""]:
        """() int64, number of targets in this batch."""
        return (self.targets != IGNORED).sum()
