"""ALiBi: a penalty linear in distance."""

import math

import torch
from torch import Tensor

from lit_transformer.blocks.position.base import Bias, Position, at_least_float32, distances, pick
from lit_transformer.dims import SizeError


class DistanceBias(Bias):
    """``-slope * |distance|`` of each head.

    Args:
        slopes: One per head, (H).
        q: Positions of the queries, (B or 1, T).
        k: Positions of the keys, (B or 1, S).
    """

    def __init__(self, slopes: Tensor, q: Tensor, k: Tensor) -> None:
        self.slopes, self.q, self.k = slopes, q, k

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """See the base class."""
        distance = distances(self.q, self.k, rows, columns).abs().unsqueeze(1)
        return -self.slopes.view(-1, 1, 1) * distance.to(self.slopes.dtype)

    def at(self, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """See the base class."""
        return -self.slopes[head] * (pick(self.q, batch, q) - pick(self.k, batch, k)).abs()


class ALiBi(Position):
    """A penalty linear in distance, with a slope per head (Press et al., 2022, arXiv:2108.12409).

    It is the same on both sides, so that it also serves encoders.

    Args:
        dims: Sizes; slopes for a number of heads that is no power of two follow the authors' code.
    """

    def bias(self, q: Tensor, k: Tensor, q_state: Tensor, k_state: Tensor) -> Bias:
        """See the base class."""
        heads = q.shape[1]
        if heads % self.dims.n_heads:
            raise SizeError("position", f"ALiBi knows the slopes of {self.dims.n_heads} heads and is asked for "
                            f"{heads}; with tensor parallelism choose RoPE")  # fmt: skip
        return DistanceBias(alibi_slopes(heads).to(q.device, at_least_float32(q)), q_state, k_state)


def alibi_slopes(heads: int) -> Tensor:
    """(H,): 2^-8/H, 2^-16/H, ... for a power of two; else those of the next lower one, then every other of the next."""
    whole = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    slopes += [2 ** (-4 * (2 * i + 1) / whole) for i in range(heads - whole)]
    return torch.tensor(slopes, dtype=torch.float64)
