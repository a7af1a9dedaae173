"""Where a token stands, and how attention gets to know.

One seam for every encoding: a position may act on the embeddings (``embed``), on queries and keys (``rotate``) or on the
scores (``bias``). Positions are explicit integers, never an ``arange`` in here: with a cache, packed documents or left
padding the numbers differ per row, and extrapolating is a call with larger ones. Nothing is stored as a table: angles
are computed from the integers once per forward pass, in float32, whatever precision the network trains in.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.dims import Dims, SizeError

Bias = Callable[[slice, slice], Tensor]
"""The bias of a block of queries and keys: slices of T and S -> (B or 1, H, t, s), added to the scaled scores."""


class Position(nn.Module):
    """Base of the encodings, and itself none at all: the hooks leave everything as it is.

    Args:
        dims: Sizes.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims

    def prepare(self, positions: Tensor) -> Any:
        """What the other hooks need of (B or 1, T) positions; called once per forward pass, shared by the layers."""
        return positions

    def embed(self, x: Tensor, state: Any) -> Tensor:
        """Acts on the embeddings (B, T, D)."""
        return x

    def rotate(self, q: Tensor, k: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        """Acts on new queries (B, H, T, K) and keys (B, G, T, K) before the keys are cached."""
        return q, k

    def bias(self, q: Tensor, k: Tensor, q_state: Any, k_state: Any) -> Bias | None:
        """What is added to the scores of queries (B, H, T, K) and all keys (B, G, S, K), block by block."""
        return None

    @property
    def has_bias(self) -> bool:
        """Whether this encoding acts on the scores, which not every kernel can take."""
        return type(self).bias is not Position.bias


class NoPosition(Position):
    """No encoding: a causal network can still tell order from the mask (Kazemnejad et al., 2023, arXiv:2305.19466)."""


def angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Outer product of integers (..., T) and frequencies (N): (..., T, N), exact in float32 to some 10^5 positions."""
    return positions.unsqueeze(-1).to(frequencies.dtype) * frequencies


class Sinusoidal(Position):
    """Fixed waves added to the embeddings (Vaswani et al., 2017, arXiv:1706.03762).

    The first half of D are sines, the second cosines, as in the authors' code.

    Args:
        dims: Sizes; ``d_model`` must be even.
        base: Longest wavelength over 2 pi.
    """

    def __init__(self, dims: Dims, base: float = 10_000.0) -> None:
        super().__init__(dims)
        if dims.d_model % 2:
            raise SizeError("dims.d_model", f"{dims.d_model} is odd, Sinusoidal needs an even width")
        self.base = base

    def prepare(self, positions: Tensor) -> Tensor:
        """Waves (B or 1, T, D)."""
        half = self.dims.d_model // 2
        exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / max(1, half - 1)
        angle = angles(positions, self.base**-exponents)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def embed(self, x: Tensor, state: Tensor) -> Tensor:
        """Adds the waves."""
        return x + state.to(x.dtype)


class Learned(Position):
    """A table of learned vectors added to the embeddings (Gehring et al., 2017, arXiv:1705.03122; GPT-2, BERT).

    Args:
        dims: Sizes; the table has ``max_len`` rows, and no position beyond it is known.
    """

    def __init__(self, dims: Dims) -> None:
        super().__init__(dims)
        self.table = nn.Parameter(torch.empty(dims.length, dims.d_model))

    def prepare(self, positions: Tensor) -> Tensor:
        """The positions themselves.

        Raises:
            SizeError: A position past the table (checked where the number is at hand: on the CPU, or by length).
        """
        rows = self.table.shape[0]
        beyond = positions.shape[-1] > rows
        if not beyond and positions.device.type == "cpu":
            beyond = int(positions.max()) >= rows
        if beyond:
            raise SizeError("dims.max_len", f"Learned positions end at {rows} and the text is longer; raise it and "
                            "train again, or choose a position that extrapolates (RoPE, ALiBi)")  # fmt: skip
        return positions

    def embed(self, x: Tensor, state: Tensor) -> Tensor:
        """Adds the vectors."""
        return x + F.embedding(state, self.table).to(x.dtype)


class RoPE(Position):
    """Rotary embedding: queries and keys turn by an angle proportional to position (Su et al., 2021, arXiv:2104.09864).

    Scores then depend on differences of positions only. Dimension i is paired with i + K/2, as in Llama.

    Args:
        dims: Sizes; the head size must be even.
        base: Longest wavelength over 2 pi.
    """

    def __init__(self, dims: Dims, base: float = 10_000.0) -> None:
        super().__init__(dims)
        if dims.head_size % 2:
            raise SizeError("dims.head_dim", f"{dims.head_size} is odd, RoPE turns pairs of dimensions: make it even")
        self.base = base

    def prepare(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B or 1, 1, T, K/2) each, in float32."""
        half = self.dims.head_size // 2
        exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / half
        angle = angles(positions, self.base**-exponents).unsqueeze(1)
        return angle.cos(), angle.sin()

    def rotate(self, q: Tensor, k: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Turns every pair."""
        cos, sin = state[0].to(q.dtype), state[1].to(q.dtype)
        return _turn(q, cos, sin), _turn(k, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class ALiBi(Position):
    """A penalty linear in distance, with a slope per head (Press et al., 2022, arXiv:2108.12409).

    Args:
        dims: Sizes; slopes for a number of heads that is no power of two follow the authors' code.
    """

    def bias(self, q: Tensor, k: Tensor, q_state: Tensor, k_state: Tensor) -> Bias:
        """(B or 1, H, t, s): ``-slope * |distance|``; symmetric, so that it also serves encoders."""
        slopes = alibi_slopes(q.shape[1]).to(q.device).view(-1, 1, 1)

        def block(rows: slice, columns: slice) -> Tensor:
            distance = (q_state[:, rows].unsqueeze(-1) - k_state[:, columns].unsqueeze(-2)).abs()
            return -slopes * distance.unsqueeze(1).to(slopes.dtype)

        return block


def alibi_slopes(heads: int) -> Tensor:
    """(H,): 2^-8/H, 2^-16/H, ... for a power of two; else the slopes of the next lower one, then every other of the next."""
    whole = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    slopes += [2 ** (-4 * (2 * i + 1) / whole) for i in range(heads - whole)]
    return torch.tensor(slopes, dtype=torch.float32)
