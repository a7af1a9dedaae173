"""How decoding remembers: what a cache holds, what it forgets, what one call leaves to the next."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.cache import Cache, CrossLayerCache, LayerCache
from lit_transformer.blocks.masks import Causal
from lit_transformer.blocks.position import ALiBi, NoPosition, RoPE
from lit_transformer.blocks.position.rotary import turn
from lit_transformer.blocks.stack import Stack
from lit_transformer.errors import UserError
from lit_transformer.networks.base import Network


class Remembering:
    """Base of the ways to remember, and itself the plain one: keys and values of all tokens, preallocated."""

    endless = False
    """Whether it forgets by itself, so that a text can be longer than the context."""

    window: int | None = None
    """Most tokens of a prompt; None: as many as the context."""

    def new(self, network: Network, rows: int, capacity: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """An empty cache for ``rows`` of up to ``capacity`` tokens."""
        return network.new_cache(rows, capacity, dtype, device)

    def make_room(self, network: Network, cache: Cache) -> Cache:
        """Called before each step: the cache with room for one more token."""
        return cache

    def known(self, network: Network, rows: Sequence[Sequence[int]]) -> Cache | None:
        """One row of cache of a beginning that all these prompts share, less their last token; None: nothing."""
        return None

    def learn(self, network: Network, rows: Sequence[Sequence[int]], cache: Cache) -> None:
        """Called with prompts and the cache after they were read."""

    def steps(self, network: Network, cache: Cache, next_position: Tensor | None) -> Callable[[Tensor], Tensor] | None:
        """What makes the steps behind a cache that holds the prompts; None: the network itself, called for each."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items() if k[0] != '_')})"


@dataclass
class Int8LayerCache(LayerCache):
    """Keys and values as whole numbers from -127 to 127, with a scale for each token and head.

    Args:
        keys: (B, G, S, K) int8.
        values: (B, G, S, K) int8.
        key_scales: (B, G, S, 1).
        value_scales: (B, G, S, 1).
    """

    key_scales: Tensor
    value_scales: Tensor

    @classmethod
    def like(cls, cache: LayerCache) -> "Int8LayerCache":
        """An empty one, as large."""
        numbers, scales = cache.keys.to(torch.int8), cache.keys[..., :1]
        return cls(numbers, numbers.clone(), scales.clone(), scales.clone())

    def append(self, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """See the base class; what comes back was quantised, but for the new tokens."""
        end = start + keys.shape[-2]
        if end > self.keys.shape[-2]:
            raise IndexError(f"the cache holds {self.keys.shape[-2]} tokens and {end} are wanted")
        both = []
        for new, numbers, scales in (
            (keys, self.keys, self.key_scales),
            (values, self.values, self.value_scales),
        ):
            scale = new.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(127)
            numbers[:, :, start:end] = (new / scale).round_().to(torch.int8)
            scales[:, :, start:end] = scale
            earlier = numbers[:, :, :start].to(new.dtype).mul_(scales[:, :, :start])
            both.append(torch.cat((earlier, new), 2) if start else new)
        return both[0], both[1]

    def reorder(self, index: Tensor) -> "Int8LayerCache":
        """The rows of a new batch taken from this one's (beam search)."""
        return Int8LayerCache(self.keys[index], self.values[index], self.key_scales[index], self.value_scales[index])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return super().nbytes + self.key_scales.nbytes + self.value_scales.nbytes


class Int8Remembering(Remembering):
    """Keys and values in int8, to the nearest: a quarter of the memory and a few bytes, for some time.

    Raises:
        UserError: A layer remembers in another way than by keys and values.
    """

    def new(self, network: Network, rows: int, capacity: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """See the base class."""
        cache = super().new(network, rows, capacity, dtype, device)
        require_places(cache, "the int8 cache")
        layers = [_with_own(layer, Int8LayerCache.like(_own(layer))) for layer in cache.layers]
        return replace(cache, layers=layers)


class Streaming(Remembering):
    """The first few tokens and the latest ones: text without end in constant memory (Xiao et al., 2023,
    arXiv:2309.17453). When the window is full, its oldest tokens go, and the first ones come nearer by as many places,
    so that no distance ever exceeds the window.

    Args:
        window: Most tokens held, the first ones included.
        sinks: How many first tokens stay.
        stride: How many are forgotten at a time: more is faster.
    """  # fmt: skip

    endless = True

    def __init__(self, window: int, sinks: int = 4, stride: int = 16) -> None:
        if sinks < 0 or stride < 1 or window <= sinks + stride:
            raise UserError(f"streaming: window {window} must be more than sinks {sinks} and stride {stride} together")
        self.window: int = window
        self.sinks, self.stride = sinks, stride

    def new(self, network: Network, rows: int, capacity: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """See the base class.

        Raises:
            UserError: The network cannot forget: another mask than the causal one, absolute positions, padded prompts.
        """
        for stack in (each for each in network.modules() if isinstance(each, Stack)):
            positions = {
                stack.position,
                *(each.own_position for each in stack._layers if each.own_position is not None),
            }
            wrong: list[Any] = [mask for mask in stack.masks if type(mask) is not Causal]
            wrong += [each for each in positions if not isinstance(each, RoPE | ALiBi | NoPosition)]
            wrong += [each for each in positions if isinstance(each, RoPE) and each.turns_all_keys]
            if len(positions) > 1 and self.sinks:
                wrong += [each for each in positions if isinstance(each, RoPE)]
            if wrong:
                raise UserError(f"streaming: {type(wrong[0]).__name__} does not let a text lose its middle: use a "
                                "causal mask and RoPE, ALiBi or no position")  # fmt: skip
        cache = super().new(network, rows, min(capacity, self.window), dtype, device)
        require_places(cache, "streaming")
        return cache

    def make_room(self, network: Network, cache: Cache) -> Cache:
        """See the base class."""
        if cache.length < cache.positions.shape[1]:
            return cache
        if cache.length <= self.sinks + self.stride:
            raise UserError(f"streaming: the context holds {cache.length} tokens, and must be more than sinks "
                            f"{self.sinks} and stride {self.stride} together")  # fmt: skip
        if cache.documents is not None:
            raise UserError("streaming: prompts of different lengths cannot be streamed together; give them one by one")
        first, gone, end = self.sinks, self.sinks + self.stride, cache.length
        (stack,) = (each for each in network.modules() if isinstance(each, Stack))
        for layer in cache.layers:
            for tensor in (layer.keys, layer.values):
                tensor[:, :, first : end - self.stride] = tensor[:, :, gone:end].clone()
            if self.sinks and isinstance(stack.position, RoPE):
                layer.keys[:, :, :first] = self._nearer(stack.position, layer.keys[:, :, :first])
        positions = cache.positions.clone()
        positions[:, :first] += self.stride
        positions[:, first : end - self.stride] = cache.positions[:, gone:end]
        return replace(cache, length=end - self.stride, positions=positions)

    def _nearer(self, position: RoPE, keys: Tensor) -> Tensor:
        """Keys turned on by as many places as were forgotten."""
        steps = torch.full((1, 1), self.stride, device=keys.device)
        cos, sin = RoPE.prepare(position, steps, torch.promote_types(keys.dtype, torch.float32))
        factor = position.scaling.attention_factor
        return turn(keys, (cos / factor, sin / factor))


class SharedPrefix(Remembering):
    """Keeps what was computed of the prompts of earlier calls: the beginning that new ones share is not read again.

    Give the same object to each call; it belongs to one network, whose weights must not change.

    Args:
        least: Fewest tokens in common that are worth keeping.
        entries: Most prompts that are kept; the one used longest ago goes.
    """

    def __init__(self, least: int = 8, entries: int = 4) -> None:
        self.least, self.entries = least, entries
        self.reused = 0
        self._owner: Any = None
        self._kept: list[tuple[list[int], Cache]] = []

    def known(self, network: Network, rows: Sequence[Sequence[int]]) -> Cache | None:
        """See the base class."""
        weight = next(network.parameters())
        if self._owner is None or self._owner() is not weight or network.reads_apart:
            self._owner, self._kept = weakref.ref(weight), []
            return None
        if len({len(row) for row in rows}) > 1 and not _only_causal(network):
            return None  # between the prefix and shorter prompts there would be padding, which masks by distance count
        shared = list(rows[0][:-1])
        for row in rows[1:]:
            shared = shared[: common(shared, row[:-1])]
        best, length = -1, self.least - 1
        for i, (tokens, _) in enumerate(self._kept):
            if (same := common(tokens, shared)) > length:
                best, length = i, same
        if best < 0:
            return None
        self._kept.append(self._kept.pop(best))
        self.reused += length
        return replace(self._kept[-1][1], length=length)

    def learn(self, network: Network, rows: Sequence[Sequence[int]], cache: Cache) -> None:
        """See the base class."""
        try:
            require_places(cache, "prefix reuse")
        except UserError:
            return
        if network.reads_apart or cache.prefix is not None:
            return
        row = max(range(len(rows)), key=lambda i: len(rows[i]))
        tokens = list(rows[row])
        if len(tokens) < self.least or any(common(kept, tokens) == len(tokens) for kept, _ in self._kept):
            return
        real = slice(None, cache.length)
        if cache.documents is not None:
            places = (cache.documents[row, : cache.length] >= 0).nonzero()[:, 0]
            first = int(places[0])
            if len(places) != cache.length - first:
                return  # padding behind the prefix
            real = slice(first, cache.length)
        layers = [
            LayerCache(each.keys[row : row + 1, :, real].clone(), each.values[row : row + 1, :, real].clone())
            for each in cache.layers
        ]
        self._kept = [each for each in self._kept if common(each[0], tokens) < len(each[0])]
        kept = Cache(layers, cache.positions[row : row + 1, real].clone(), len(tokens))
        self._kept = [*self._kept, (tokens, kept)][-self.entries :]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(cache.nbytes for _, cache in self._kept)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that two rows begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def require_places(cache: Cache, what: str) -> None:
    """Refuses a cache that does not hold keys and values by place.

    Raises:
        UserError: Naming the kind of memory.
    """
    for layer in cache.layers:
        if type(_own(layer)) is not LayerCache:
            raise UserError(f"{what} needs keys and values by place, and a layer holds {type(_own(layer)).__name__}: "
                            "use the plain cache")  # fmt: skip


def _own(layer: Any) -> Any:
    return layer.own if isinstance(layer, CrossLayerCache) else layer


def _with_own(layer: Any, own: LayerCache) -> Any:
    return replace(layer, own=own) if isinstance(layer, CrossLayerCache) else own


def _only_causal(network: Network) -> bool:
    return all(type(mask) is Causal for each in network.modules() if isinstance(each, Stack) for mask in each.masks)
