"""Catching what attention does, whatever kernel computes it: ``with record_attention(network) as record: ...``

Queries and keys are caught after norm and position have acted on them, which is linear in the length; weights are
computed from them on demand, for the heads and rows that are asked for. The training code knows nothing of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.attention import BaseAttention
from lit_transformer.blocks.context import Context, Visibility
from lit_transformer.blocks.cross_attention import CrossAttention
from lit_transformer.blocks.position import Bias
from lit_transformer.errors import UserError
from lit_transformer.networks.base import Network

EVERYTHING = slice(None)

TILE = 2**21
"""Weights that are computed together where nothing else is said."""


@dataclass
class Call:
    """One call of one attention: T new queries over S keys.

    Args:
        q: Queries (B, H, T, K) as they are compared.
        k: Keys (B, G, S, K) as they are compared.
        v: Values (B, G, S, K).
        visible: Who may look at whom.
        bias: What the position adds to the scores.
        soft_cap: What the scores are bent to stay within.
        plain_q: Queries before the position turned them; None where that is not known.
        plain_k: The new tokens' keys before the position turned them; None where that is not known.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    visible: Visibility
    bias: Bias | None
    soft_cap: float | None
    plain_q: Tensor | None = None
    plain_k: Tensor | None = None

    def scores(
        self, heads: slice = EVERYTHING, rows: slice = EVERYTHING, keys: slice = EVERYTHING
    ) -> Float[Tensor, "B h t s"]:
        """What softmax is taken of, -inf where the query may not look; in float32 at least."""
        groups = self.q.shape[1] // self.k.shape[1]
        q = self.q[:, heads, rows].to(torch.promote_types(self.q.dtype, torch.float32))
        k = self.k[:, :, keys].to(q.dtype).repeat_interleave(groups, dim=1)[:, heads]
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.mT
        if self.soft_cap is not None:
            scores = (scores / self.soft_cap).tanh() * self.soft_cap
        if self.bias is not None:
            scores = scores + self.bias(rows, keys)[:, heads]
        # Added, not filled in: a sum runs through memory ten times as fast as a choice does on a CPU.
        visible = self.visible.block(rows, keys).unsqueeze(1)
        scores += torch.zeros(visible.shape, dtype=q.dtype, device=q.device).masked_fill_(~visible, -torch.inf)
        return scores

    def weights(
        self, heads: slice = EVERYTHING, rows: slice = EVERYTHING, keys: slice = EVERYTHING
    ) -> Float[Tensor, "B h t s"]:
        """Attention weights; zeros for a query that sees nothing.

        Args:
            heads: Which heads.
            rows: Which queries.
            keys: Which keys; what is left out must be hidden from these queries.
        """
        weights = self.scores(heads, rows, keys).softmax(-1)
        blind = ~self.visible.block(rows, keys).any(-1)
        return weights.masked_fill_(blind[:, None, :, None], 0.0) if blind.any() else weights

    def reach(self, rows: slice) -> int:
        """Number of keys up to the last one that any of some queries sees."""
        seen = self.visible.block(rows, EVERYTHING).flatten(0, 1).any(0).nonzero()
        return int(seen[-1]) + 1 if len(seen) else 1


@dataclass
class AttentionLayer:
    """What one attention did.

    Args:
        name: Path of the module in the network.
        stack: Path of the stack that it belongs to ("stack", "encoder", "decoder").
        layer: Number of the layer in its stack.
        cross: Whether the keys are an encoder's states.
        module: The attention itself; None for a foreign model.
        calls: One in a forward pass; one a step in cached decoding.
    """

    name: str
    stack: str
    layer: int
    cross: bool
    module: nn.Module | None = None
    calls: list[Call] = field(default_factory=list)

    @property
    def heads(self) -> int:
        """Number of maps of weights."""
        return self.calls[0].q.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of queries and of keys, over all calls."""
        return sum(call.q.shape[2] for call in self.calls), self.calls[-1].k.shape[2]

    def weights(self, heads: slice = EVERYTHING, rows: slice = EVERYTHING) -> Float[Tensor, "B h t S"]:
        """Attention weights of the chosen queries, counted over all calls; keys that came later are 0.

        Args:
            heads: Which heads.
            rows: Which queries.
        """
        queries, keys = self.shape
        first, last, step = rows.indices(queries)
        found, start = [], 0
        for call in self.calls:
            length = call.q.shape[2]
            low, high = first + max(0, -(-(start - first) // step)) * step, min(last, start + length)
            if low < high:
                part = call.weights(heads, slice(low - start, high - start, step))
                found.append(nn.functional.pad(part, (0, keys - part.shape[-1])))
            start += length
        if not found:
            return self.calls[0].q.new_zeros(self.calls[0].q.shape[0], self.heads, 0, keys)[:, heads]
        return torch.cat(found, dim=2)

    def tiles(
        self, size: int | None = None, heads: slice = EVERYTHING
    ) -> Iterator[tuple[slice, Float[Tensor, "B h t s"]]]:
        """The weights, ``size`` queries at a time: memory stays linear in the length.

        Keys behind the last one that a tile's queries see may be left out: under a causal mask, half of all work.

        Args:
            size: How many queries; left out: as many as make a tile that stays in a processor's cache.
            heads: Which heads.
        """
        size = size or max(16, TILE // (self.heads * self.shape[1]))
        for start in range(0, self.shape[0], size):
            rows = slice(start, min(start + size, self.shape[0]))
            if len(self.calls) == 1:
                yield rows, self.calls[0].weights(heads, rows, slice(self.calls[0].reach(rows)))
            else:
                yield rows, self.weights(heads, rows)


@dataclass
class AttentionRecord:
    """What the attentions of a network did, in the order of the layers.

    Args:
        layers: One for each attention that was called.
    """

    layers: list[AttentionLayer] = field(default_factory=list)

    def of(self, stack: str | None = None, cross: bool = False) -> list[AttentionLayer]:
        """Those of one stack (left out: all), to their own tokens or to an encoder's states."""
        return [each for each in self.layers if each.cross == cross and stack in (None, each.stack)]

    def __getitem__(self, name: str) -> AttentionLayer:
        """One by its path in the network.

        Raises:
            KeyError: There is none; the ones there are named.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{name}: recorded are {', '.join(each.name for each in self.layers)}")


@dataclass
class _Watched(Context):
    """A context that notes what attention asks of it."""

    into: list[Call] = field(default_factory=list)
    plain: tuple[Tensor, Tensor] | None = None

    def remember(self, q: Tensor, k: Tensor, v: Tensor, cache: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.plain = q.detach(), k.detach()
        return super().remember(q, k, v, cache)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, soft_cap: float | None = None) -> Tensor:
        bias = self.position.bias(q, k, self.q_state, self.k_state)
        self._note(q, k, v, self.visible, bias, soft_cap)
        return super().attend(q, k, v, dropout, soft_cap)

    def attend_to_memory(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, soft_cap: float | None = None
    ) -> Tensor:
        assert self.memory_visible is not None
        self._note(q, k, v, self.memory_visible, None, soft_cap)
        return super().attend_to_memory(q, k, v, dropout, soft_cap)

    def _note(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None, soft_cap: float | None
    ) -> None:
        if self.into and self.into[-1].q is q:
            return  # the same weights over another part of the values (differential attention)
        plain_q, plain_k = self.plain or (None, None)
        self.into.append(Call(q, k.detach(), v.detach(), visible, bias, soft_cap, plain_q, plain_k))


@contextmanager
def record_attention(network: Network) -> Iterator[AttentionRecord]:
    """Records the attention of every forward pass inside, cached decoding step by step.

    Works with every architecture, kernel, position and mask; linear attention has no weights and is left out. What was
    recorded stays valid afterwards. Recompute and compiled layers are bypassed by nothing: call it on a plain network.

    Args:
        network: The network; dropout is as its mode says (``network.eval()`` to see what decoding sees).

    Yields:
        The record, filled while the block runs.

    Raises:
        UserError: The network has no attention whose weights could be recorded.
    """
    record = AttentionRecord()
    handles = []
    seen: dict[str, AttentionLayer] = {}
    for name, module in network.named_modules():
        if isinstance(module, BaseAttention):
            seen[name] = AttentionLayer(name, *_place(name), isinstance(module, CrossAttention), module)
            handles.append(module.register_forward_pre_hook(_watch(seen[name])))
    if not handles:
        raise UserError(f"{type(network).__name__} has no attention to record")
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
        record.layers.extend(layer for layer in seen.values() if layer.calls)


def _watch(layer: AttentionLayer) -> Any:
    def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        x, context, *rest = given
        values = {each.name: getattr(context, each.name) for each in fields(Context)}
        return (x, _Watched(**values, into=layer.calls), *rest)

    return hook


def _place(name: str) -> tuple[str, int]:
    """Stack and number of the layer in a module's path."""
    words = name.split(".")
    number = next((i for i, word in enumerate(words) if word.isdigit()), None)
    if number is None:
        return name, 0
    return ".".join(word for word in words[:number] if word != "layers"), int(words[number])
