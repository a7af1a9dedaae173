"""Learned biases by relative position: T5's buckets and Shaw's vectors."""

import math

import torch
from torch import Tensor, nn

from lit_transformer.blocks.position.base import Bias, Position, at_least_float32, distances, pick
from lit_transformer.dims import Dims, SizeError


class BucketBias(Bias):
    """A learned number per bucket of distances and head.

    Args:
        position: Knows the buckets.
        q: Positions of the queries, (B or 1, T).
        k: Positions of the keys, (B or 1, S).
        dtype: Of the result.
    """

    def __init__(self, position: "RelativeBias", q: Tensor, k: Tensor, dtype: torch.dtype) -> None:
        self.position, self.q, self.k = position, q, k
        self.table = position.table.to(dtype)

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """See the base class."""
        buckets = self.position.buckets_of(distances(self.q, self.k, rows, columns))
        return nn.functional.embedding(buckets, self.table).movedim(-1, 1)

    def at(self, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """See the base class."""
        return self.table[self.position.buckets_of(pick(self.q, batch, q) - pick(self.k, batch, k)), head]


class RelativeBias(Position):
    """A learned bias per head and bucket of distances, near ones exact, far ones shared, on both sides (T5's encoder).

    Raffel et al., 2020 (arXiv:1910.10683). T5's cross-attention has none.

    Args:
        dims: Sizes.
        buckets: Number of buckets, half of them for keys that come later.
        max_distance: All distances from here on share one bucket.
    """

    def __init__(self, dims: Dims, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__(dims)
        self.buckets, self.max_distance = buckets, max_distance
        exact = self._side // 2
        if buckets % 2 or exact < 1:
            raise SizeError("position.buckets", f"is {buckets} in {type(self).__name__}, must be even and at least "
                            f"{2 * buckets // max(1, self._side)}")  # fmt: skip
        if max_distance <= exact:
            raise SizeError("position.max_distance", f"is {max_distance}, must be greater than the {exact} distances "
                            "that have a bucket of their own")  # fmt: skip
        self.table = nn.Parameter(torch.empty(buckets, dims.n_heads))

    @property
    def _side(self) -> int:
        """Number of buckets for one side."""
        return self.buckets // 2

    def buckets_of(self, distance: Tensor) -> Tensor:
        """The bucket of each query position minus key position."""
        return self._one_side(distance.abs()) + torch.where(distance < 0, self._side, 0)

    def _one_side(self, distance: Tensor) -> Tensor:
        """Exact up to half of the buckets, then by the logarithm up to ``max_distance``."""
        exact = self._side // 2
        ratio = (distance.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (ratio * (self._side - exact)).long()).clamp(max=self._side - 1)
        return torch.where(distance < exact, distance, far)

    def bias(self, q: Tensor, k: Tensor, q_state: Tensor, k_state: Tensor) -> Bias:
        """See the base class."""
        return BucketBias(self, q_state, k_state, at_least_float32(q))


class CausalRelativeBias(RelativeBias):
    """A learned bias per head and bucket of distances, all buckets for what came before (T5's decoder).

    Args:
        dims: Sizes.
        buckets: Number of buckets.
        max_distance: All distances from here on share one bucket.
    """

    @property
    def _side(self) -> int:
        return self.buckets

    def buckets_of(self, distance: Tensor) -> Tensor:
        """See the base class."""
        return self._one_side(distance.clamp(min=0))


class ShawBias(Bias):
    """``q . a_(i-j) / sqrt(K)``.

    Args:
        scores: Scaled scores of each query with every vector of the table, (B, H, T, N).
        q: Positions of the queries, (B or 1, T).
        k: Positions of the keys, (B or 1, S).
        reach: Largest distance that is told apart.
    """

    def __init__(self, scores: Tensor, q: Tensor, k: Tensor, reach: int) -> None:
        self.scores, self.q, self.k, self.reach = scores, q, k, reach

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """See the base class."""
        scores = self.scores[:, :, rows]
        index = clipped(distances(self.q, self.k, rows, columns), self.reach).unsqueeze(1)
        return scores.gather(-1, index.expand(*scores.shape[:2], -1, -1))


class Shaw(Position):
    """A learned vector per distance, added to keys and to values (Shaw et al., 2018, arXiv:1803.02155).

    Distances are clipped; all heads share the vectors.

    Args:
        dims: Sizes.
        max_distance: Distances beyond share the outermost vectors.
    """

    def __init__(self, dims: Dims, max_distance: int = 16) -> None:
        super().__init__(dims)
        if max_distance < 1:
            raise SizeError("position.max_distance", f"is {max_distance} in Shaw, must be at least 1")
        self.max_distance = max_distance
        self.key_table = nn.Parameter(torch.empty(2 * max_distance + 1, dims.head_size))
        self.value_table = nn.Parameter(torch.empty(2 * max_distance + 1, dims.head_size))

    def bias(self, q: Tensor, k: Tensor, q_state: Tensor, k_state: Tensor) -> Bias:
        """See the base class."""
        scores = q @ self.key_table.to(q.dtype).T * q.shape[-1] ** -0.5
        return ShawBias(scores.to(at_least_float32(q)), q_state, k_state, self.max_distance)

    def values(self, weights: Tensor, q_state: Tensor, k_state: Tensor) -> Tensor:
        """Weights summed by distance, times the vectors."""
        everything = slice(None)
        index = clipped(distances(q_state, k_state, everything, everything), self.max_distance).unsqueeze(1)
        by_distance = weights.new_zeros(*weights.shape[:-1], self.value_table.shape[0])
        by_distance = by_distance.scatter_add(-1, index.expand_as(weights), weights)
        return by_distance @ self.value_table.to(weights.dtype)


def clipped(distance: Tensor, reach: int) -> Tensor:
    """Row of the table for each query position minus key position: the key's side first, as in the paper."""
    return (-distance).clamp(-reach, reach) + reach
