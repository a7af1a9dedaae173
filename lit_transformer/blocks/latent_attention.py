"""Attention over a compressed memory."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lit_transformer.blocks.attention import BaseAttention
from lit_transformer.blocks.cache import LayerCache
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.linear import Linear, ResidualLinear
from lit_transformer.blocks.masks import Mask
from lit_transformer.blocks.norms import Norm, RMSNorm
from lit_transformer.blocks.position import Position
from lit_transformer.dims import Dims, SizeError


class LatentAttention(BaseAttention):
    """Multi-head latent attention (DeepSeek-V2, 2024, arXiv:2405.04434).

    Keys and values of all heads are products of one small vector a token, the latent (R). Only that is cached, and one
    key for all heads that the position turns: R + K numbers a token, whatever the number of heads. A query and a key
    have a part for content (C) and a part for position (K = ``dims.head_size``, which RoPE turns).

    Decoding never expands the cache to keys and values: since q . (W c) = (W^T q) . c, queries are mapped to latents
    instead and all heads look at the same ones (the absorbed form).

    Args:
        dims: Sizes; ``head_dim`` is the size of a head's turned part.
        rank: Size R of the latent; left out: four heads.
        query_rank: Size of a latent that queries are products of; left out: queries are made from the stream.
        content_size: Size C of the unturned part of queries and keys; left out: the head size.
        value_size: Size V of values; left out: the head size.
        dropout: Share of the attention weights that is dropped in training.
        norm: Norm of the latents.
    """

    score_products = ("query", "query_latent", "latent", "turned_key", "key")

    def __init__(
        self,
        dims: Dims,
        rank: int | None = None,
        query_rank: int | None = None,
        content_size: int | None = None,
        value_size: int | None = None,
        dropout: float = 0.0,
        norm: Callable[[Dims], Norm] = RMSNorm,
    ) -> None:
        super().__init__(dims)
        turned, heads = dims.head_size, dims.n_heads
        self.rank = 4 * turned if rank is None else rank
        self.content_size = turned if content_size is None else content_size
        self.value_size = turned if value_size is None else value_size
        self.dropout = dropout
        self._check_sizes(query_rank)
        width = heads * (self.content_size + turned)
        if query_rank is None:
            self.query_latent, self.query_norm = None, None
            self.query = Linear(dims.d_model, width, bias=False)
        else:
            self.query_latent = Linear(dims.d_model, query_rank, bias=False)
            self.query_norm = norm(replace(dims, d_model=query_rank, n_heads=1, n_kv_heads=1, head_dim=None))
            self.query = Linear(query_rank, width, bias=False)
        self.latent = Linear(dims.d_model, self.rank, bias=False)
        self.latent_norm = norm(replace(dims, d_model=self.rank, n_heads=1, n_kv_heads=1, head_dim=None))
        self.turned_key = Linear(dims.d_model, turned, bias=False)
        self.key = Linear(self.rank, heads * self.content_size, bias=False)
        self.value = Linear(self.rank, heads * self.value_size, bias=False)
        self.output = ResidualLinear(heads * self.value_size, dims.d_model, bias=False)

    def _check_sizes(self, query_rank: int | None) -> None:
        sizes = {"rank": self.rank, "query_rank": query_rank, "content_size": self.content_size}
        for key, size in (sizes | {"value_size": self.value_size}).items():
            if size is not None and size < 1:
                raise SizeError(f"attention.{key}", f"is {size}, must be at least 1")
        widest = self.content_size + self.dims.head_size
        if self.value_size > widest:
            raise SizeError("attention.value_size", f"{self.value_size} is more than content_size + head_dim; "
                            f"valid: 1 to {widest}")  # fmt: skip
        if self.dims.kv_heads != self.dims.n_heads:
            raise SizeError("dims.n_kv_heads", f"{self.dims.kv_heads}: LatentAttention shares keys by its rank, not by "
                            f"groups; valid: {self.dims.n_heads} (or leave it out)")  # fmt: skip

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: LayerCache | None = None
    ) -> tuple[Float[Tensor, "B T D"], LayerCache | None]:
        """Every token gathers from the tokens it may see; returns the cache with the new latents in it."""
        turned = self.dims.head_size
        h = x
        if self.query_latent is not None and self.query_norm is not None:
            h = self.query_norm(self.query_latent(x), context)
        q = heads(self.query(h), self.content_size + turned)
        q_content, q = torch.split(q, [self.content_size, turned], dim=-1)
        latent = self.latent_norm(self.latent(x), context).unsqueeze(1)
        # To the cache, the turned key is the key and the latent is the value of one head.
        q, k, latent = context.remember(q, self.turned_key(x).unsqueeze(1), latent, cache)
        form = self.expanded if cache is None or context.cache_start == 0 else self.absorbed
        y = form(q_content, q, k, latent, context)
        return self.output(y.transpose(1, 2).flatten(2)), cache

    def expanded(self, q_content: Tensor, q: Tensor, k: Tensor, latent: Tensor, context: Context) -> Tensor:
        """Keys and values of every head are made of the latents: least work where all tokens are new.

        Args:
            q_content: (B, H, T, C).
            q: (B, H, T, K), turned.
            k: (B, 1, S, K), turned.
            latent: (B, 1, S, R).
            context: The context.

        Returns:
            (B, H, T, V).
        """
        latent = latent.squeeze(1)
        k_content = heads(self.key(latent), self.content_size)
        k = torch.cat((k_content, k.expand(-1, k_content.shape[1], -1, -1).to(k_content.dtype)), dim=-1)
        v = heads(self.value(latent), self.value_size)
        v = F.pad(v, (0, k.shape[-1] - self.value_size))  # kernels (flash above all) want values as wide as keys
        return self._attend(torch.cat((q_content, q), dim=-1), k, v, context)[..., : self.value_size]

    def absorbed(self, q_content: Tensor, q: Tensor, k: Tensor, latent: Tensor, context: Context) -> Tensor:
        """The same, with the products moved to the queries' side: least memory where one token looks at many."""
        weight = self.key.weight.view(-1, self.content_size, self.rank)
        q = torch.cat((torch.einsum("bhtc,hcr->bhtr", q_content, weight.to(q_content.dtype)), q), dim=-1)
        # Kernels divide by the root of the width they see.
        q = q * (q.shape[-1] / (self.content_size + self.dims.head_size)) ** 0.5
        k = torch.cat((latent, k), dim=-1).to(q.dtype)
        y = self._attend(q, k, k, context)[..., : self.rank]
        weight = self.value.weight.view(-1, self.value_size, self.rank)
        return torch.einsum("bhtr,hvr->bhtv", y, weight.to(y.dtype))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        return context.attend(q, k, v, self.dropout if self.training else 0.0)

    def new_cache(self, batch: int, max_len: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Room for ``max_len`` turned keys (as keys) and latents (as values) of one head."""
        keys = torch.zeros(batch, 1, max_len, self.dims.head_size, device=device, dtype=dtype)
        return LayerCache(keys, torch.zeros(batch, 1, max_len, self.rank, device=device, dtype=dtype))

    def check(self, mask: Mask, position: Position) -> None:
        """See the base class."""
        if position.has_values:
            raise SizeError("position", f"{type(position).__name__} acts on values, which LatentAttention never "
                            "makes when decoding; valid: RoPE, ALiBi and others that do not")  # fmt: skip


def heads(x: Tensor, size: int) -> Tensor:
    """(B, T, H x size) -> (B, H, T, size)."""
    return x.view(*x.shape[:-1], -1, size).transpose(1, 2)
