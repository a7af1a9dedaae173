"""Where a token stands, and how attention gets to know.

One seam for every encoding: a position may act on the embeddings (``embed``), on queries and keys (``rotate``), on the
scores (``bias``) or on the values (``values``). Positions are explicit integers, never an ``arange`` in here: with a
cache, packed documents or left padding the numbers differ per row, and extrapolating is a call with larger ones.
Nothing is stored as a table: angles are computed from the integers once per forward pass, in float32 at least, whatever
precision the network trains in.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.dims import Dims


class Bias:
    """What a position adds to the scaled scores of (B, H, T) queries and (B, G, S) keys."""

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """The bias of a block: slices of T and S -> (B or 1, H, t, s), in float32 at least."""
        raise NotImplementedError

    def at(self, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """The bias of single indices under ``vmap``, for flex attention's score modification.

        This one looks it up in the whole table; a bias that can be computed from the indices overrides it.
        """
        table = self._table()
        return table[batch if table.shape[0] > 1 else 0, head, q, k]

    def _table(self) -> Tensor:
        table: Tensor | None = getattr(self, "_whole", None)
        if table is None:
            table = self._whole = self(slice(None), slice(None))
        return table


class Position(nn.Module):
    """Base of the encodings, and itself none at all: the hooks leave everything as it is.

    Args:
        dims: Sizes.
    """

    relative = True
    """Whether attention changes with differences of positions only, so that a shift of all of them changes nothing."""

    turns_all_keys = False
    """Whether keys are cached as they are and turned anew at every step, as the angles depend on the text's length."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims

    def prepare(self, positions: Int[Tensor, "B T"], dtype: torch.dtype = torch.float32) -> Any:
        """What the other hooks need of (B or 1, T) positions; called once per forward pass, shared by the layers.

        Args:
            positions: Whole numbers from 0.
            dtype: Type of what is computed from them: float32, or float64 where the network runs in it.
        """
        return positions

    def embed(self, x: Float[Tensor, "B T D"], state: Any) -> Float[Tensor, "B T D"]:
        """Acts on the embeddings (B, T, D)."""
        return x

    def rotate(
        self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B G S K"], q_state: Any, k_state: Any
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B G S K"]]:
        """Acts on queries (B, H, T, K) and keys (B, G, T, K) before the keys are cached."""
        return q, k

    def bias(self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B G S K"], q_state: Any, k_state: Any) -> Bias | None:
        """What is added to the scores of queries (B, H, T, K) and all keys (B, G, S, K), block by block."""
        return None

    def values(self, weights: Float[Tensor, "B H T S"], q_state: Any, k_state: Any) -> Float[Tensor, "B H T K"]:
        """What is added to the result (B, H, T, K) for attention weights (B, H, T, S); asked where ``has_values``."""
        raise NotImplementedError

    @property
    def has_bias(self) -> bool:
        """Whether this encoding acts on the scores, which not every kernel can take."""
        return type(self).bias is not Position.bias

    @property
    def has_values(self) -> bool:
        """Whether this encoding acts on the values, for which a kernel must give its weights."""
        return type(self).values is not Position.values

    @property
    def needs_keys(self) -> bool:
        """Whether the states of all keys are wanted, the cached ones' too."""
        return self.has_bias or self.has_values or self.turns_all_keys


class NoPosition(Position):
    """No encoding: a causal network can still tell order from the mask (Kazemnejad et al., 2023, arXiv:2305.19466)."""


def angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Whole numbers (..., T) times frequencies (N) or (..., 1, N): (..., T, N)."""
    return positions.unsqueeze(-1).to(frequencies.dtype) * frequencies


def distances(q: Tensor, k: Tensor, rows: slice, columns: slice) -> Tensor:
    """Query position minus key position of a block: (B or 1, t, s) from (B or 1, T) and (B or 1, S)."""
    return q[:, rows].unsqueeze(-1) - k[:, columns].unsqueeze(-2)


def pick(positions: Tensor, batch: Tensor, index: Tensor) -> Tensor:
    """One position of (B or 1, T) by single indices under ``vmap``."""
    return positions[0][index] if positions.shape[0] == 1 else positions[batch, index]


def at_least_float32(x: Tensor) -> torch.dtype:
    """The type in which angles and biases for ``x`` are computed."""
    return torch.promote_types(x.dtype, torch.float32)
