"""One preallocated cache whose rows are entered and left at any decoding step.

All rows write their next token at the same place, the end; a row that enters is put so that its prompt ends there, and
what stands before it is padding. A step looks at the places from the longest row's beginning to the end, and at the
rows in use: these are the first ones, as the last row moves to where one has left.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lit_transformer.blocks.cache import Cache, CrossLayerCache, LayerCache, MemoryCache
from lit_transformer.blocks.linear_attention import RecurrentState
from lit_transformer.blocks.masks import Sites
from lit_transformer.errors import UserError
from lit_transformer.generation.runner import PADDING, left_padded
from lit_transformer.networks.base import Network


class LayerRows:
    """Rows of what one layer remembers; this base: keys and values by place.

    Args:
        cache: The layer's, for all rows and places.
    """

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def view(self, rows: int, first: int, end: int, sources: int) -> Any:
        """What the layer is handed: the first rows, the places from ``first`` on.

        Args:
            rows: Number of rows in use.
            first: First place to look at.
            end: Place of the next token.
            sources: Places of the encoder's states to look at.
        """
        return LayerCache(self.cache.keys[:rows, :, first:], self.cache.values[:rows, :, first:])

    def keep(self, after: Any) -> None:
        """Takes over what the layer gave back."""

    def put(self, row: int, made: Any, made_row: int, end: int, length: int, sources: int) -> None:
        """Fills a row with the last ``length`` places of a row of another cache, so that they end at ``end``."""
        for mine, theirs in ((self.cache.keys, made.keys), (self.cache.values, made.values)):
            width = theirs.shape[2]
            mine[row, :, end - length : end] = theirs[made_row, :, width - length :]

    def move(self, source: int, target: int, first: int, end: int) -> None:
        """Copies the places of a row to another."""
        for tensor in (self.cache.keys, self.cache.values):
            tensor[target, :, first:end] = tensor[source, :, first:end]

    def shift(self, rows: int, first: int, end: int, by: int) -> None:
        """Moves places towards the beginning."""
        for tensor in (self.cache.keys, self.cache.values):
            tensor[:rows, :, first - by : end - by] = tensor[:rows, :, first:end].clone()


class StateRows(LayerRows):
    """Rows of sums (linear attention), which have no places."""

    cache: RecurrentState

    def view(self, rows: int, first: int, end: int, sources: int) -> RecurrentState:
        """See the base class."""
        state = self.cache
        return RecurrentState(state.memory[:rows], state.keys[:rows], state.document[:rows], end - first)

    def keep(self, after: RecurrentState) -> None:
        """See the base class."""
        rows = len(after.document)
        for mine, theirs in self._pairs(after):
            mine[:rows] = theirs

    def put(self, row: int, made: RecurrentState, made_row: int, end: int, length: int, sources: int) -> None:
        """See the base class."""
        for mine, theirs in self._pairs(made):
            mine[row] = theirs[made_row]

    def move(self, source: int, target: int, first: int, end: int) -> None:
        """See the base class."""
        for mine, _ in self._pairs(self.cache):
            mine[target] = mine[source]

    def shift(self, rows: int, first: int, end: int, by: int) -> None:
        """See the base class: nothing to move."""

    def _pairs(self, other: RecurrentState) -> list[tuple[Tensor, Tensor]]:
        mine = self.cache
        return [(mine.memory, other.memory), (mine.keys, other.keys), (mine.document, other.document)]


class CrossRows(LayerRows):
    """Rows of a layer that also looks at an encoder's states.

    Args:
        cache: The layer's.
        sources: Most places of the encoder's states.
    """

    def __init__(self, cache: CrossLayerCache, sources: int) -> None:
        self.own = rows_of(cache.own, sources)
        self.sources = sources
        self.memory: LayerCache | None = None

    def view(self, rows: int, first: int, end: int, sources: int) -> CrossLayerCache:
        """See the base class."""
        assert self.memory is not None
        memory = MemoryCache(self.memory.keys[:rows, :, :sources], self.memory.values[:rows, :, :sources])
        return CrossLayerCache(self.own.view(rows, first, end, sources), memory)

    def keep(self, after: CrossLayerCache) -> None:
        """See the base class."""
        self.own.keep(after.own)

    def put(self, row: int, made: CrossLayerCache, made_row: int, end: int, length: int, sources: int) -> None:
        """See the base class."""
        self.own.put(row, made.own, made_row, end, length, sources)
        keys, values = made.memory.keys, made.memory.values
        assert keys is not None and values is not None
        if self.memory is None:
            slots = self.own.cache.keys.shape[0]

            def room(like: Tensor) -> Tensor:
                return like.new_zeros(slots, like.shape[1], self.sources, like.shape[3])

            self.memory = LayerCache(room(keys), room(values))
        for mine, theirs in ((self.memory.keys, keys), (self.memory.values, values)):
            mine[row, :, :sources] = theirs[made_row, :, theirs.shape[2] - sources :]

    def move(self, source: int, target: int, first: int, end: int) -> None:
        """See the base class."""
        self.own.move(source, target, first, end)
        assert self.memory is not None
        for tensor in (self.memory.keys, self.memory.values):
            tensor[target] = tensor[source]

    def shift(self, rows: int, first: int, end: int, by: int) -> None:
        """See the base class."""
        self.own.shift(rows, first, end, by)


def rows_of(cache: Any, sources: int) -> LayerRows:
    """The rows of what a layer remembers.

    Raises:
        UserError: A layer that remembers in a way that rows cannot be taken from.
    """
    if type(cache) is LayerCache:
        return LayerRows(cache)
    if type(cache) is RecurrentState:
        return StateRows(cache)
    if type(cache) is CrossLayerCache:
        return CrossRows(cache, sources)
    raise UserError(f"{type(cache).__name__} cannot be batched continuously: this network cannot be served")


class Slots:
    """Rows that are decoded together, each from its own beginning.

    Args:
        network: One that writes text.
        slots: Most rows.
        window: Most tokens of a row; of an encoder-decoder also of a source.
    """

    def __init__(self, network: Network, slots: int, window: int) -> None:
        self.network = network
        self.slots = slots
        self.window = window
        weight = next(network.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        # The places behind the window are gone through before all rows are moved back by as many.
        self.capacity = window + max(32, window // 4)
        base = network.new_cache(slots, self.capacity, self.dtype, self.device)
        self._base = base
        self._layers = [rows_of(layer, window) for layer in base.layers]
        self._documents = torch.full_like(base.positions, PADDING)
        self._prefix: Tensor | None = None
        self._next = torch.zeros(slots, 1, dtype=torch.long, device=self.device)
        self._end = window
        self.lengths: list[int] = []
        """Number of tokens in each row in use."""
        self._sources: list[int] = []

    @property
    def nbytes(self) -> int:
        """Bytes held, but for an encoder's states."""
        return self._base.nbytes

    @property
    def free(self) -> int:
        """Number of rows that are not in use."""
        return self.slots - len(self.lengths)

    @torch.inference_mode()
    def enter(self, prompts: Sequence[Sequence[int]]) -> Float[Tensor, "N V"]:
        """Puts prompts into rows behind those in use; returns the scores of what comes next in each."""
        openings = [self.network.opening(prompt) for prompt in prompts]
        width = max(map(len, openings))
        cache = self.network.new_cache(len(prompts), width, self.dtype, self.device)
        tokens, documents, positions = left_padded(prompts, self.device)
        if min(map(len, prompts)) == tokens.shape[1]:
            output = self.network.prefill(tokens, cache=cache)
        else:
            output = self.network.prefill(tokens, documents, positions, cache)
        made = output.cache
        assert made is not None
        if not self.lengths:
            self._end = self.window
        for i, opening in enumerate(openings):
            self._put(made, i, len(opening), len(prompts[i]))
        logits: Tensor = output.head(output.hidden[:, -1:])
        return logits[:, 0].float()

    def _put(self, made: Cache, i: int, length: int, source: int) -> None:
        row, start = len(self.lengths), self._end - length
        for mine, theirs in zip(self._layers, made.layers, strict=True):
            mine.put(row, theirs, i, self._end, length, source)
        self._documents[row, :start] = PADDING
        self._documents[row, start : self._end] = 0
        self._base.positions[row, start : self._end] = torch.arange(length, device=self.device)
        if made.prefix is not None:
            if self._prefix is None:
                self._prefix = torch.zeros_like(self._documents, dtype=torch.bool)
            self._prefix[row, start : self._end] = made.prefix[i, made.length - length : made.length]
        self._next[row] = length
        self.lengths.append(length)
        self._sources.append(source)

    @torch.inference_mode()
    def leave(self, row: int) -> None:
        """Frees a row; the last one in use takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            first = self._end - self.lengths[last]
            for layer in self._layers:
                layer.move(last, row, first, self._end)
            for tensor in (self._documents, self._base.positions, self._next, self._prefix):
                if tensor is not None:
                    tensor[row] = tensor[last]
            self.lengths[row], self._sources[row] = self.lengths[last], self._sources[last]
        del self.lengths[last], self._sources[last]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Float[Tensor, "R V"]:
        """One more token for each row in use; returns the scores of the ones after them."""
        rows, longest = len(self.lengths), max(self.lengths)
        if self._end == self.capacity:
            self._shift(rows, longest)
        first = self._end - longest
        sources = max(self._sources)
        whole = min(self.lengths) == longest
        cache = Cache(
            layers=[layer.view(rows, first, self._end, sources) for layer in self._layers],
            positions=self._base.positions[:rows, first:],
            length=longest,
            documents=None if whole else self._documents[:rows, first:],
            prefix=None if self._prefix is None else self._prefix[:rows, first:],
            memory=self._memory(sources) if self.network.reads_apart else None,
        )
        new = torch.tensor(tokens, device=self.device).unsqueeze(1)
        output = self.network(new, None if whole else torch.zeros_like(new), self._next[:rows].clone(), cache)
        for mine, theirs in zip(self._layers, output.cache.layers, strict=True):
            mine.keep(theirs)
        self._documents[:rows, self._end] = 0
        self._next[:rows] += 1
        self._end += 1
        self.lengths = [length + 1 for length in self.lengths]
        logits: Tensor = output.head(output.hidden[:, -1:])
        return logits[:, 0].float()

    def _memory(self, sources: int) -> Sites:
        """Where the encoder's states stand: sources begin at the first place."""
        index = torch.arange(sources, device=self.device).unsqueeze(0)
        if min(self._sources) == sources:
            return Sites(index)
        lengths = torch.tensor(self._sources, device=self.device).unsqueeze(1)
        return Sites(index, torch.where(index < lengths, 0, PADDING))

    def _shift(self, rows: int, longest: int) -> None:
        """Moves all rows back, so that the end is where the window ends."""
        first, by = self._end - longest, self._end - self.window
        for layer in self._layers:
            layer.shift(rows, first, self._end, by)
        for tensor in (self._documents, self._base.positions, self._prefix):
            if tensor is not None:
                tensor[:rows, first - by : self._end - by] = tensor[:rows, first : self._end].clone()
        for row, length in enumerate(self.lengths):
            self._documents[row, : self._end - by - length] = PADDING
        self._end -= by

    def clear(self) -> None:
        """Frees all rows."""
        self.lengths, self._sources = [], []
        self._end = self.window
