"""A network and its cache as one thing: growing rows of tokens in, scores of the next token out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_transformer.blocks.cache import Cache, LayerCache
from lit_transformer.errors import UserError
from lit_transformer.generation.caches import Remembering
from lit_transformer.networks.base import Network, Output

PADDING = -1
"""The document of a place that holds no token."""


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Dropout off; every module's own mode comes back afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of different lengths as tokens, documents and positions (R, N); padding stands on the left."""
    width = max(map(len, rows))
    tokens = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    padding = torch.tensor([width - len(row) for row in rows], device=device).unsqueeze(1)
    positions = torch.arange(width, device=device).unsqueeze(0) - padding
    return tokens, positions.clamp(min=PADDING, max=0), positions.clamp(min=0)


class Runner:
    """Feeds rows of tokens to a network and its cache, and gives the scores of what comes next.

    Args:
        network: One that writes text.
        remembering: How it remembers; left out: all of it, preallocated.
    """

    def __init__(self, network: Network, remembering: Remembering | None = None) -> None:
        self.network = network
        self.remembering = remembering or Remembering()
        weight = next(network.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.cache: Cache | None = None
        self.hidden: Tensor | None = None
        self._steps: Callable[[Tensor], Tensor] | None = None
        self._positions: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of places of the cache in use, padding included."""
        return 0 if self.cache is None else self.cache.length

    def prefill(self, rows: Sequence[Sequence[int]], capacity: int) -> Float[Tensor, "R V"]:
        """Starts anew with these prompts and a cache of ``capacity`` places; returns the scores of what comes next."""
        # Under autocast keys come in its type, and attention wants queries and keys alike.
        kind = self.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype
        cache = self.remembering.new(self.network, len(rows), capacity, dtype, self.device)
        longest, room = max(map(len, rows)), self.remembering.window
        if room is not None and longest > room:
            raise UserError(f"a prompt has {longest} tokens and the cache holds {room}: shorten it")
        self._steps = None
        prefix = self.remembering.known(self.network, rows)
        if prefix is not None:
            return self._continue(prefix, rows, cache)
        tokens, documents, positions = left_padded(rows, self.device)
        if min(map(len, rows)) == tokens.shape[1]:
            # Without padding nothing is said about documents and positions, and kernels take their fast paths.
            output = self.network.prefill(tokens, cache=cache)
        else:
            output = self.network.prefill(tokens, documents, positions, cache)
        self.cache = after = output.cache
        assert after is not None
        self._positions = None if after.documents is None else after.positions[:, after.length - 1 : after.length] + 1
        self.remembering.learn(self.network, rows, after)
        return self._scores(output)

    def _continue(self, prefix: Cache, rows: Sequence[Sequence[int]], cache: Cache) -> Float[Tensor, "R V"]:
        """Prompts whose beginning is known: it is copied to the start of each row, and only the rest is read."""
        length = prefix.length
        for mine, known in zip(cache.layers, prefix.layers, strict=True):
            mine.keys[:, :, :length] = known.keys[:, :, :length]
            mine.values[:, :, :length] = known.values[:, :, :length]
        cache.positions[:, :length] = prefix.positions[:, :length]
        cache = replace(cache, length=length)
        tokens, documents, positions = left_padded([row[length:] for row in rows], self.device)
        even = min(map(len, rows)) == max(map(len, rows))
        output = self.network(tokens, documents=None if even else documents, positions=positions + length, cache=cache)
        self.cache = after = output.cache
        assert after is not None
        self._positions = None if even else after.positions[:, after.length - 1 : after.length] + 1
        if even:
            self.remembering.learn(self.network, rows, after)
        return self._scores(output)

    def step(self, tokens: Int[Tensor, " R"]) -> Float[Tensor, "R V"]:
        """One more token for each row; returns the scores of the ones after them."""
        assert self.cache is not None
        if self._steps is None:
            self._steps = self.remembering.steps(self.network, self.cache, self._positions)
        if self._steps is not None:
            self.cache = replace(self.cache, length=self.cache.length + 1)
            if self._positions is not None:
                self._positions = self._positions + 1
            return self._steps(tokens)
        before = self.cache.length
        self.cache = self.remembering.make_room(self.network, self.cache)
        if self.cache.length < before and self._positions is None:
            self._positions = self.cache.positions[:, self.cache.length - 1 : self.cache.length] + 1
        output = self.network(tokens.unsqueeze(1), positions=self._positions, cache=self.cache)
        self.cache = output.cache
        if self._positions is not None:
            self._positions += 1
        return self._scores(output)

    def extend(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "R T V"]:
        """Several more tokens for each row, all equally many; returns the scores of what follows each of them."""
        tokens = torch.tensor(rows, device=self.device)
        positions = self._positions
        if positions is not None:
            positions = positions + torch.arange(tokens.shape[1], device=self.device)
            self._positions = positions[:, -1:] + 1
        output = self.network(tokens, positions=positions, cache=self.cache)
        self.cache = output.cache
        logits: Tensor = output.logits
        return logits.float()

    def fork(self, tokens: Int[Tensor, "R N"]) -> Float[Tensor, "R N V"]:
        """One more token for each of N continuations of each row, which the cache's lineage knows; the next scores."""
        positions = self._positions
        output = self.network(
            tokens, positions=None if positions is None else positions.expand(-1, tokens.shape[1]), cache=self.cache
        )
        self.cache = output.cache
        if positions is not None:
            positions += 1
        logits: Tensor = output.logits
        return logits.float()

    def rewind(self, length: int) -> None:
        """Forgets all places of the cache from ``length`` on.

        Raises:
            UserError: A layer remembers in another way than by places, and cannot forget.
        """
        assert self.cache is not None
        for layer in self.cache.layers:
            if not isinstance(getattr(layer, "own", layer), LayerCache):
                raise UserError(f"speculative decoding needs a cache that can be rewound, and {type(layer).__name__} "
                                "cannot: decode without a draft")  # fmt: skip
        if self._positions is not None:
            self._positions = self._positions - (self.cache.length - length)
        self.cache = replace(self.cache, length=length)

    def reorder(self, index: Int[Tensor, " R"]) -> None:
        """Goes on with these rows of the present ones: copies for samples, survivors of a beam."""
        assert self.cache is not None
        self.cache = self.cache.reorder(index)
        self._steps = None
        if self._positions is not None:
            self._positions = self._positions[index]

    def _scores(self, output: Output) -> Tensor:
        self.hidden = output.hidden
        logits: Tensor = output.head(output.hidden[:, -1:])
        return logits[:, 0].float()
