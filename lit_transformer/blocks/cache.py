"""What decoding remembers: an argument of ``forward`` and part of its result; the modules stay stateless."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class LayerCache:
    """Keys and values of one attention, preallocated: (B, G, S, K) each.

    Keys are stored as attention uses them, after the position's rotation.
    """

    keys: Tensor
    values: Tensor

    def append(self, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Writes (B, G, T, K) at ``start``; returns all keys and values up to there as views."""
        end = start + keys.shape[-2]
        if end > self.keys.shape[-2]:
            raise IndexError(f"the cache holds {self.keys.shape[-2]} tokens and {end} are wanted")
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reorder(self, index: Tensor) -> "LayerCache":
        """The rows of a new batch taken from this one's (beam search)."""
        return LayerCache(self.keys[index], self.values[index])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.keys.nbytes + self.values.nbytes


@dataclass
class Cache:
    """The decoding state of a network.

    Args:
        layers: One entry per layer, as that layer's attention made it.
        length: Number of tokens seen.
        positions: (B, S) positions of the tokens seen.
        documents: (B, S), -1 for padding; None as long as no call named documents.
        prefix: (B, S), True where everybody sees the token; None as long as no call named a prefix.
    """

    layers: list[LayerCache]
    positions: Tensor
    length: int = 0
    documents: Tensor | None = None
    prefix: Tensor | None = None

    def advanced(self, positions: Tensor, documents: Tensor | None, prefix: Tensor | None = None) -> "Cache":
        """This cache after T more tokens with the given (B, T) positions, documents and prefix."""
        batch, start, end = self.positions.shape[0], self.length, self.length + positions.shape[-1]
        if end > self.positions.shape[-1]:
            raise IndexError(f"the cache holds {self.positions.shape[-1]} tokens and {end} are wanted")
        self.positions[:, start:end] = positions
        stored = self.documents
        if documents is not None and stored is None:
            stored = torch.zeros_like(self.positions)
        if stored is not None:
            stored[:, start:end] = 0 if documents is None else documents.expand(batch, -1)
        common = self.prefix
        if prefix is not None and common is None:
            common = torch.zeros_like(self.positions, dtype=torch.bool)
        if common is not None:
            common[:, start:end] = False if prefix is None else prefix
        return replace(self, length=end, documents=stored, prefix=common)

    def reorder(self, index: Tensor) -> "Cache":
        """The rows of a new batch taken from this one's (beam search)."""
        documents = None if self.documents is None else self.documents[index]
        prefix = None if self.prefix is None else self.prefix[index]
        layers = [layer.reorder(index) for layer in self.layers]
        return Cache(layers, self.positions[index], self.length, documents, prefix)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held."""
        return sum(layer.nbytes for layer in self.layers)
