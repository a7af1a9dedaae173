"""Steps of one fixed shape: compiled once for all of them, or recorded once on an accelerator and replayed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.cache import Cache, CrossLayerCache, LayerCache, Lineage
from lit_transformer.blocks.masks import Causal, PrefixCausal
from lit_transformer.blocks.stack import Stack
from lit_transformer.errors import UserError
from lit_transformer.generation.caches import Remembering, require_places
from lit_transformer.generation.form import duplicate
from lit_transformer.networks.base import Network


@dataclass
class FixedLayerCache(LayerCache):
    """Keys and values of which all places are always looked at; where the next one goes is data, not shape.

    Args:
        keys: (B, G, S, K).
        values: (B, G, S, K).
        place: (1,) where the next token goes.
    """

    place: Tensor

    def append(self, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Writes (B, G, 1, K) at the place; returns all keys and values, also those of places not yet in use."""
        self.keys.index_copy_(2, self.place, keys)
        self.values.index_copy_(2, self.place, values)
        return self.keys, self.values


class FixedShape(Remembering):
    """A cache all of whose places are looked at behind a mask, so that every step is the same sequence of operations.

    On CUDA the first step is recorded as a graph and replayed, which leaves out nearly all that is done per operation
    on the CPU's side. Elsewhere it is only slower: see ``Compiled``.
    """

    def steps(self, network: Network, cache: Cache, next_position: Tensor | None) -> "FixedSteps":
        """What makes the steps behind a cache that holds the prompts.

        Raises:
            UserError: A mask or a position that counts the places of the cache, or a layer that remembers otherwise.
        """
        require_places(cache, "a step of fixed shape")
        for stack in (each for each in network.modules() if isinstance(each, Stack)):
            if cache.layers and len(stack.layers) != len(cache.layers):
                continue
            wrong: list[Any] = [mask for mask in stack.masks if type(mask) not in (Causal, PrefixCausal)]
            positions = {
                stack.position,
                *(each.own_position for each in stack._layers if each.own_position is not None),
            }
            wrong += [each for each in positions if each.needs_keys]
            if wrong and stack is not getattr(network, "encoder", None):
                raise UserError(f"a step of fixed shape: {type(wrong[0]).__name__} counts the places of the cache; "
                                "use the plain cache")  # fmt: skip
        return FixedSteps(self.network(network), cache, next_position, self.recorded)

    def network(self, network: Network) -> Network:
        """The network to step with."""
        return network

    def recorded(self, step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
        """The same function of what stands in its buffers, faster if possible."""
        if device.type != "cuda":
            return step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels are chosen and memory is set up before the recording
            for _ in range(2):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = step()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class Compiled(FixedShape):
    """Layers compiled by ``torch.compile``, in a copy of the network that shares its weights; takes a minute at first.

    On CUDA the compiled step is recorded too.
    """

    def __init__(self) -> None:
        self._compiled: dict[int, tuple[Network, Network]] = {}

    def network(self, network: Network) -> Network:
        """See the base class; the same network is compiled once."""
        if id(network) not in self._compiled:
            same = duplicate(network)
            for stack in (each for each in same.modules() if isinstance(each, Stack)):
                for layer in stack.layers:
                    layer.compile(dynamic=False)
            self._compiled = {id(network): (network, same)}
        return self._compiled[id(network)][1]


class FixedSteps:
    """One token for each row at a time, out of buffers that stay where they are.

    Args:
        network: The network.
        cache: Holds the prompts, with room for what follows.
        next_position: (R, 1) of the next token, where rows differ; None: its place.
        recorded: Makes the step faster.
    """

    def __init__(
        self,
        network: Network,
        cache: Cache,
        next_position: Tensor | None,
        recorded: Callable[[Callable[[], Tensor], torch.device], Callable[[], Tensor]],
    ) -> None:
        rows, room = cache.positions.shape
        device = cache.positions.device
        self.network, self._recorded = network, recorded
        self._run: Callable[[], Tensor] | None = None
        self.length, self.room = cache.length, room
        self.place = torch.tensor([cache.length], device=device)
        self.tokens = torch.zeros(rows, 1, dtype=torch.long, device=device)
        start = torch.full((rows, 1), cache.length, device=device) if next_position is None else next_position
        self.positions = start.clone()
        index = torch.arange(room, device=device).unsqueeze(0)
        real = (index < cache.length).expand(rows, -1)
        if cache.documents is not None:
            real = real & (cache.documents >= 0)
        self.seen = real.unsqueeze(1).clone()
        layers = [self._fixed(layer) for layer in cache.layers]
        self.cache = replace(
            cache, layers=layers, length=room - 1, documents=None, prefix=None, lineage=Lineage(index, self.seen)
        )

    def __call__(self, tokens: Tensor) -> Tensor:
        """Scores (R, V) of what follows one more token (R,) in each row."""
        if self.length >= self.room:
            raise IndexError(f"the cache holds {self.room} tokens and {self.length + 1} are wanted")
        self.tokens.copy_(tokens.unsqueeze(1))
        self.place.fill_(self.length)
        self.seen.index_fill_(2, self.place, True)
        if self._run is None:
            self._run = self._recorded(self._step, self.place.device)
        logits = self._run()
        self.positions += 1
        self.length += 1
        return logits

    def _step(self) -> Tensor:
        output = self.network(
            self.tokens, positions=self.positions, cache=replace(self.cache, layers=[*self.cache.layers])
        )
        logits: Tensor = output.head(output.hidden)
        return logits[:, 0].float()

    def _fixed(self, layer: Any) -> Any:
        own = layer.own if isinstance(layer, CrossLayerCache) else layer
        fixed = FixedLayerCache(own.keys, own.values, self.place)
        return CrossLayerCache(fixed, layer.memory) if isinstance(layer, CrossLayerCache) else fixed
