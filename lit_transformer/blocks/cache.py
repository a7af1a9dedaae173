"""What decoding remembers: an argument of ``forward`` and part of its result; the modules stay stateless."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.masks import Sites


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
class MemoryCache:
    """Keys and values (B, G, S, K) of the states that one cross-attention looks at: made once, then read at each step.

    None until the first call on the cache.
    """

    keys: Tensor | None = None
    values: Tensor | None = None

    def reorder(self, index: Tensor) -> "MemoryCache":
        """The rows of a new batch taken from this one's (beam search)."""
        if self.keys is None or self.values is None:
            return self
        return MemoryCache(self.keys[index], self.values[index])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self.keys is None or self.values is None else self.keys.nbytes + self.values.nbytes


@dataclass
class CrossLayerCache:
    """What a layer with cross-attention remembers.

    Args:
        own: What its self-attention made.
        memory: What its cross-attention made.
    """

    own: Any
    memory: MemoryCache

    def reorder(self, index: Tensor) -> "CrossLayerCache":
        """The rows of a new batch taken from this one's (beam search)."""
        return CrossLayerCache(self.own.reorder(index), self.memory.reorder(index))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.own.nbytes) + self.memory.nbytes


@dataclass
class Memory:
    """An encoder's result, as a decoder's layers look at it.

    Args:
        states: (B, S, D); None once every layer holds its keys and values of them.
        sites: (B or 1, S) where they stand; the document is -1 for padding.
    """

    states: Tensor | None
    sites: Sites


@dataclass
class Lineage:
    """Several continuations of each row in one cache, their tokens side by side: nothing is copied when one forks.

    Args:
        index: (1, S) how far each place of the cache is from its row's start, along its own continuation.
        seen: (B, T, S) which places each of the next T tokens, one a continuation, descends from; itself included.
    """

    index: Tensor
    seen: Tensor


@dataclass
class Cache:
    """The decoding state of a network.

    Args:
        layers: One entry per layer, as that layer's attention made it.
        length: Number of tokens seen.
        positions: (B, S) positions of the tokens seen.
        documents: (B, S), -1 for padding; None as long as no call named documents.
        prefix: (B, S), True where everybody sees the token; None as long as no call named a prefix.
        memory: Where the encoder's states stand that the layers hold keys of; None where there is no encoder.
        lineage: Who descends from whom, where each row holds several continuations.
    """

    layers: list[Any]
    positions: Tensor
    length: int = 0
    documents: Tensor | None = None
    prefix: Tensor | None = None
    memory: Sites | None = None
    lineage: Lineage | None = None

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
        memory = self.memory
        if memory is not None and memory.document is not None:
            memory = replace(memory, document=memory.document[index])
        return Cache(layers, self.positions[index], self.length, documents, prefix, memory)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held."""
        return sum(int(layer.nbytes) for layer in self.layers)
