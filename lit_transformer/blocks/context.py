"""The one thing that is threaded through the layers."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from lit_transformer.blocks.masks import (
    Documents,
    Mask,
    MaskMod,
    Sites,
    Tiles,
    block_mask,
    mask_mod,
    plain_block_mask,
    plain_tiles,
    tiles,
)

if TYPE_CHECKING:
    from lit_transformer.blocks.cache import LayerCache
    from lit_transformer.blocks.kernels import Kernel
    from lit_transformer.blocks.position import Position


class Visibility:
    """A mask over the queries and keys of one forward pass; tensors are made on demand and shared by the layers.

    Args:
        mask: The predicate.
        q: Sites of the queries, (B or 1, T).
        k: Sites of the keys, (B or 1, S); the queries are its last T where they are the same sequence.
        seen: (B, T, S) what may be seen beside, where rows hold several continuations; for kernels that read ``dense``.
    """

    def __init__(self, mask: Mask, q: Sites, k: Sites, seen: Bool[Tensor, "B T S"] | None = None) -> None:
        self.mask = mask if k.document is None else mask & Documents()
        self.q = q
        self.k = k
        self.seen = seen
        self._q_len, self._k_len = q.index.shape[-1], k.index.shape[-1]
        self._tiles: dict[tuple[int, int], Tiles] = {}

    @cached_property
    def hides_nothing(self) -> bool:
        """Every query sees every key."""
        return self.seen is None and self.mask.hides_nothing(self._k_len - self._q_len, self._q_len, self._k_len)

    @property
    def is_causal(self) -> bool:
        """The plain lower triangle over a square: the case that kernels have a fast path for."""
        return self.seen is None and self._q_len == self._k_len and self.mask.is_causal(self._k_len)

    @cached_property
    def dense(self) -> Bool[Tensor, "B T S"]:
        """The whole mask (B may be 1); True where the query may look."""
        allowed = self.mask.allowed(self.q.queries(), self.k.keys())
        return allowed if self.seen is None else allowed & self.seen

    @cached_property
    def blind(self) -> Bool[Tensor, "B T 1"]:
        """True for queries that see nothing at all: their output is zero."""
        return ~self.dense.any(-1, keepdim=True)

    def block(self, rows: slice, columns: slice) -> Bool[Tensor, "B t s"]:
        """The mask of one block of queries and keys."""
        q = self.q.map(lambda field: field[..., rows])
        k = self.k.map(lambda field: field[..., columns])
        return self.mask.allowed(q.queries(), k.keys())

    def tiles(self, rows: int, columns: int) -> Tiles:
        """Which tiles of ``rows`` queries x ``columns`` keys hold anything visible, and which hold nothing hidden.

        Rows without documents and prefix share one answer per mask and lengths, on the CPU; the others' is computed
        anew, where the documents are.
        """
        if self.k.document is None and self.k.prefix is None:
            start = self._k_len - self._q_len
            return plain_tiles(self.mask, start, self._q_len, self._k_len, rows, columns)
        if (rows, columns) not in self._tiles:
            self._tiles[rows, columns] = tiles(self.mask, self.q, self.k, rows, columns)
        return self._tiles[rows, columns]

    @cached_property
    def block_mask(self) -> Any:
        """The ``BlockMask`` of flex attention; rows without documents and prefix share one per mask and lengths."""
        device = self.q.index.device
        if self.k.document is None and self.k.prefix is None:
            return plain_block_mask(self.mask, self._k_len - self._q_len, self._q_len, self._k_len, device)
        batch = max(field.shape[0] for field in (self.k.document, self.k.prefix) if field is not None)
        return block_mask(self.mask_mod, batch, self._q_len, self._k_len, device)

    @property
    def mask_mod(self) -> MaskMod:
        """The predicate over single indices, for flex attention."""
        return mask_mod(self.mask, self.q, self.k)


class Parts(Protocol):
    """How the tokens of a row lie on devices that share it."""

    def place(self, length: int) -> slice:
        """Where this device's tokens stand in a sequence of this length."""

    def gather(self, x: Tensor) -> Tensor:
        """(B, H, T, K) of the whole sequence from each device's part of it."""


@dataclass
class Context:
    """Built once per forward pass by the stack, for all layers that share mask, position and kernel.

    Args:
        visible: Who may look at whom.
        position: The position encoding; its hooks are called inside attention.
        q_state: What the position prepared for the new tokens.
        k_state: The same for all keys, cached ones included (None where the position acts on the new ones only).
        kernel: How attention is computed.
        cache_start: Number of tokens that the cache held before this pass.
        memory: Encoder states (B, S, D) that cross-attention looks at.
        memory_visible: Who may look at whom there.
        parts: How the tokens of a row are shared by devices, if they are.
    """

    visible: Visibility
    position: "Position"
    q_state: Any
    k_state: Any
    kernel: "Kernel"
    cache_start: int = 0
    memory: Tensor | None = None
    memory_visible: Visibility | None = None
    parts: "Parts | None" = None

    @cached_property
    def is_plain(self) -> bool:
        """Whether every query sees every key, and the position adds nothing to scores or values."""
        return self.visible.hides_nothing and not self.position.has_bias and not self.position.has_values

    @property
    def real(self) -> Bool[Tensor, "B T"] | None:
        """True for tokens that are not padding; None: all of them."""
        document = self.visible.q.document
        return None if document is None else document >= 0

    def remember(self, q: Tensor, k: Tensor, v: Tensor, cache: "LayerCache | None") -> tuple[Tensor, Tensor, Tensor]:
        """Turns new queries (B, H, T, K) and keys (B, G, T, K) by position; all keys and values so far come back.

        Keys are cached turned, unless the position turns all of them anew at every step (dynamic NTK).
        """
        if cache is None or not self.position.turns_all_keys:
            q, k = self.position.rotate(q, k, self.q_state, self.q_state)
        if cache is not None:
            k, v = cache.append(k, v, self.cache_start)
            if self.position.turns_all_keys:
                q, k = self.position.rotate(q, k, self.q_state, self.k_state)
        if self.parts is not None:
            k, v = self.parts.gather(k), self.parts.gather(v)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, soft_cap: float | None = None) -> Tensor:
        """The kernel's result (B, H, T, K) for turned queries and all keys, with what the position adds."""
        bias = self.position.bias(q, k, self.q_state, self.k_state)
        if not self.position.has_values:
            y: Tensor = self.kernel(q, k, v, self.visible, bias, dropout, soft_cap)
            return y
        weights = F.dropout(self.kernel.weights(q, k, self.visible, bias, soft_cap), dropout)
        y = weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        return y + self.position.values(weights, self.q_state, self.k_state)

    def attend_to_memory(
        self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, soft_cap: float | None = None
    ) -> Tensor:
        """The kernel's result (B, H, T, K) for queries over the memory's keys, where no position acts."""
        assert self.memory_visible is not None
        y: Tensor = self.kernel(q, k, v, self.memory_visible, None, dropout, soft_cap)
        return y
