"""Attention without a softmax: a sum that can be carried along."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lit_transformer.blocks.attention import BaseAttention
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.feed_forward import Activation
from lit_transformer.blocks.linear import Linear, ResidualLinear
from lit_transformer.blocks.masks import Mask
from lit_transformer.blocks.position import Position
from lit_transformer.dims import Dims, SizeError
from lit_transformer.errors import UserError


class PositiveELU(Activation):
    """elu(x) + 1: positive everywhere, as weights must be (Katharopoulos et al., 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.elu(x) + 1


@dataclass
class RecurrentState:
    """What decoding remembers: sums over the tokens seen, in float32; its size does not grow.

    Args:
        memory: (B, G, K, K) sum of keys times values.
        keys: (B, G, K) sum of keys.
        document: (B,) document that the sums belong to; -1 as long as there was none.
        length: Number of tokens seen.
    """

    memory: Tensor
    keys: Tensor
    document: Tensor
    length: int = 0

    def reorder(self, index: Tensor) -> "RecurrentState":
        """The rows of a new batch taken from this one's (beam search)."""
        return replace(self, memory=self.memory[index], keys=self.keys[index], document=self.document[index])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.memory.nbytes + self.keys.nbytes


class Features(NamedTuple):
    """Queries, keys and values in chunks of C tokens: n chunks.

    Args:
        q: (B, n, G, H/G, C, K) features of queries.
        k: (B, n, G, C, K) features of keys.
        turned_q: The same queries, turned by position.
        turned_k: The same keys, turned by position.
        v: (B, n, G, C, K).
        document: (B, n, C); padding belongs to the document before it.
    """

    q: Tensor
    k: Tensor
    turned_q: Tensor
    turned_k: Tensor
    v: Tensor
    document: Tensor


class LinearAttention(BaseAttention):
    """Causal attention with weights ``f(q) . f(k)``, linear in length (Katharopoulos et al., 2020, arXiv:2006.16236).

    Training runs in parallel over chunks; decoding is a recurrence whose state has a constant size. RoPE turns the
    features of the numerator, not those of the sum of weights (RoFormer, section 3.3). Documents of a row must lie one
    behind the other. The kernel is not used.

    Args:
        dims: Sizes.
        bias: Whether the four products have a bias.
        features: Makes the elementwise map f; it must not be negative.
        chunk: Number of tokens that see each other directly; longer takes more work, shorter more memory.
    """

    score_products = ("query", "key")

    def __init__(
        self,
        dims: Dims,
        bias: bool = False,
        features: Callable[[], Activation] = PositiveELU,
        chunk: int = 64,
    ) -> None:
        super().__init__(dims)
        if chunk < 1:
            raise SizeError("attention.chunk", f"is {chunk}, must be at least 1")
        self.chunk = chunk
        self.features = features()
        self.query = Linear(dims.d_model, dims.n_heads * dims.head_size, bias=bias)
        self.key = Linear(dims.d_model, dims.kv_heads * dims.head_size, bias=bias)
        self.value = Linear(dims.d_model, dims.kv_heads * dims.head_size, bias=bias)
        self.output = ResidualLinear(dims.n_heads * dims.head_size, dims.d_model, bias=bias)

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: RecurrentState | None = None
    ) -> tuple[Float[Tensor, "B T D"], RecurrentState | None]:
        """Every token gathers from those before it in its document; returns the state after the last one."""
        if cache is not None and cache.length != context.cache_start:
            raise UserError(f"LinearAttention has seen {cache.length} tokens and cannot go back to "
                            f"{context.cache_start}; decode without speculation or dropping tokens")  # fmt: skip
        q, k, v = self._heads(self.query(x)), self._heads(self.key(x)), self._heads(self.value(x))
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(v.dtype, torch.float32)
            q, k = self.features(q.to(dtype)), self.features(k.to(dtype))
            turned_q, turned_k = context.position.rotate(q, k, context.q_state, context.q_state)
            state = cache or self._start(x.shape[0], x.device, dtype)
            chunks = self._chunks(q, k, turned_q, turned_k, v.to(dtype), context.visible.q.document, state.document)
            y, state = gather(chunks, state, x.shape[1])
        return self.output(y.to(v.dtype)), None if cache is None else state

    def _chunks(
        self, q: Tensor, k: Tensor, turned_q: Tensor, turned_k: Tensor, v: Tensor,
        document: Int[Tensor, "B T"] | None, before: Int[Tensor, " B"],
    ) -> Features:  # fmt: skip
        batch, _, length, _ = q.shape
        groups, filler = k.shape[1], -length % self.chunk if length > self.chunk else 0
        chunk = min(self.chunk, length)
        if document is None:
            document = before.new_zeros(batch, length)
        else:
            document = document.expand(batch, -1)
            # Padding does not end a document: it takes the number of the last token before it.
            steps = torch.arange(length, device=q.device)
            last = torch.where(document >= 0, steps, -1).cummax(-1).values
            real = (document >= 0)[:, None, :, None].to(q.dtype)
            q, k, turned_q, turned_k = q * real, k * real, turned_q * real, turned_k * real
            document = torch.where(last >= 0, document.gather(-1, last.clamp(min=0)), before.unsqueeze(-1))
        document = torch.cat((document, document[:, -1:].expand(-1, filler)), -1).view(batch, -1, chunk)

        def cut(x: Tensor) -> Tensor:
            return F.pad(x, (0, 0, 0, filler)).reshape(batch, x.shape[1], -1, chunk, x.shape[-1]).transpose(1, 2)

        def grouped(x: Tensor) -> Tensor:
            return cut(x).reshape(batch, -1, groups, x.shape[1] // groups, chunk, x.shape[-1])

        return Features(grouped(q), cut(k), grouped(turned_q), cut(turned_k), cut(v), document)

    def _start(self, batch: int, device: torch.device, dtype: torch.dtype) -> RecurrentState:
        shape = (batch, self.dims.kv_heads, self.dims.head_size, self.dims.head_size)
        memory = torch.zeros(shape, device=device, dtype=dtype)
        return RecurrentState(memory, memory[..., 0].clone(), torch.full((batch,), -1, device=device))

    def new_cache(self, batch: int, max_len: int, device: torch.device, dtype: torch.dtype) -> RecurrentState:
        """An empty state; it is as large for one token as for any number."""
        return self._start(batch, device, torch.promote_types(dtype, torch.float32))

    def check(self, mask: Mask, position: Position) -> None:
        """See the base class."""
        if not mask.is_causal(self.dims.max_len or 2**31):
            raise SizeError("mask", f"{mask} cannot be had from LinearAttention, which sums over all earlier tokens; "
                            "valid: Causal (or another attention)")  # fmt: skip
        if position.has_bias or position.has_values or position.turns_all_keys:
            raise SizeError("position", f"{type(position).__name__} needs each pair of tokens by itself, and "
                            "LinearAttention has only sums; valid: RoPE, Sinusoidal, Learned, NoPosition")  # fmt: skip


def gather(x: Features, state: RecurrentState, length: int) -> tuple[Float[Tensor, "B T HK"], RecurrentState]:
    """Within chunks pair by pair, between chunks through the sums that the chunks before left."""
    last = torch.cat((state.document.unsqueeze(-1), x.document[..., -1]), dim=-1)  # (B, n + 1)
    # What a chunk leaves: sums over those of its tokens that belong to its last document.
    leaves = (x.document == last[:, 1:, None]).to(x.k.dtype)[:, :, None, :, None]
    memories = torch.cat((state.memory.unsqueeze(1), (x.turned_k * leaves).mT @ x.v), dim=1)
    keys = torch.cat((state.keys.unsqueeze(1), (x.k * leaves).sum(-2)), dim=1)
    same = (last.unsqueeze(-1) == last.unsqueeze(-2)).tril().to(x.k.dtype)
    memories = torch.einsum("bcj,bjgkv->bcgkv", same, memories)
    keys = torch.einsum("bcj,bjgk->bcgk", same, keys)

    carried = (x.document == last[:, :-1, None]).to(x.k.dtype)[:, :, None, None, :, None]
    pairs = (x.document.unsqueeze(-1) == x.document.unsqueeze(-2)).tril()[:, :, None, None]
    weights = (x.turned_q @ x.turned_k.unsqueeze(3).mT).masked_fill(~pairs, 0.0)
    plain = weights if x.turned_q is x.q else (x.q @ x.k.unsqueeze(3).mT).masked_fill(~pairs, 0.0)
    total = plain.sum(-1, keepdim=True) + carried * (x.q @ keys[:, :-1, :, None, :, None])
    y = weights @ x.v.unsqueeze(3) + carried * (x.turned_q @ memories[:, :-1].unsqueeze(3))
    y = y / (total + 1e-6)  # of a token that sees nothing, both are zero
    y = y.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)[:, :length].flatten(2)
    return y, RecurrentState(memories[:, -1], keys[:, -1], last[:, -1], state.length + length)
