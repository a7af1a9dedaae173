"""Positions added to the embeddings: sinusoidal and learned."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks.position.base import Position, angles, at_least_float32
from lit_transformer.dims import Dims, SizeError


class Sinusoidal(Position):
    """Fixed waves added to the embeddings (Vaswani et al., 2017, arXiv:1706.03762).

    The first half of D are sines, the second cosines, as in the authors' code.

    Args:
        dims: Sizes; ``d_model`` must be even.
        base: Longest wavelength over 2 pi.
    """

    relative = False

    def __init__(self, dims: Dims, base: float = 10_000.0) -> None:
        super().__init__(dims)
        if dims.d_model % 2:
            raise SizeError("dims.d_model", f"{dims.d_model} is odd, Sinusoidal needs an even width")
        self.base = base

    def prepare(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Waves (B or 1, T, D)."""
        half = self.dims.d_model // 2
        exponents = torch.arange(half, device=positions.device, dtype=dtype) / max(1, half - 1)
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

    relative = False

    def __init__(self, dims: Dims) -> None:
        super().__init__(dims)
        self.table = nn.Parameter(torch.empty(dims.length, dims.d_model))

    @property
    def reach(self) -> int:
        """Number of positions that it knows."""
        return self.table.shape[0]

    def prepare(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The positions themselves.

        Raises:
            SizeError: A position past the table (checked where the number is at hand: on the CPU, or by length).
        """
        beyond = positions.shape[-1] > self.reach
        if not beyond and positions.device.type == "cpu" and positions.numel():
            beyond = int(positions.max()) >= self.reach
        if beyond:
            raise SizeError("dims.max_len", f"{type(self).__name__} positions end at {self.reach} and the text is "
                            "longer; raise it and train again, stretch the table (InterpolatedLearned), or choose a "
                            "position that extrapolates (RoPE, ALiBi)")  # fmt: skip
        return positions

    def embed(self, x: Tensor, state: Tensor) -> Tensor:
        """Adds the vectors."""
        return x + F.embedding(state, self.table).to(x.dtype)


class InterpolatedLearned(Learned):
    """A learned table stretched to longer texts: position p reads between the rows around p / factor.

    The parameter is that of ``Learned``, so weights trained with one load into the other (as position interpolation
    does for rotary angles: Chen et al., 2023, arXiv:2306.15595).

    Args:
        dims: Sizes.
        factor: How many times further than its table it reaches.
        trained_len: Rows of the table; left out: ``max_len``.
    """

    def __init__(self, dims: Dims, factor: float = 2.0, trained_len: int | None = None) -> None:
        super().__init__(dims.with_max_len(trained_len))
        if trained_len is not None:
            self.table = nn.Parameter(torch.empty(trained_len, dims.d_model))
        if factor < 1:
            raise SizeError("position.factor", f"is {factor}, must be at least 1")
        self.factor = factor

    @property
    def reach(self) -> int:
        """Number of positions that it knows."""
        return int(self.table.shape[0] * self.factor)

    def embed(self, x: Tensor, state: Tensor) -> Tensor:
        """Adds the vectors between the rows."""
        place = (state.to(at_least_float32(self.table)) / self.factor).clamp(max=self.table.shape[0] - 1)
        below = place.floor()
        low = F.embedding(below.long(), self.table)
        high = F.embedding(place.ceil().long(), self.table)
        share = (place - below).unsqueeze(-1).to(self.table.dtype)
        return x + torch.lerp(low, high, share).to(x.dtype)
