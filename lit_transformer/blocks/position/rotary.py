"""Rotary encodings: queries and keys turn with their position."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_transformer.blocks.position.base import Position, angles
from lit_transformer.blocks.position.scaling import Scaling, inverse_frequencies
from lit_transformer.dims import Dims, SizeError

Waves = tuple[Tensor, Tensor]
"""Cosines and sines, (B or 1, 1, T, R / 2) each, for R turned dimensions."""


class RoPE(Position):
    """Rotary embedding: queries and keys turn by an angle proportional to position (Su et al., 2021, arXiv:2104.09864).

    Scores then depend on differences of positions only. Of R turned dimensions, i is paired with i + R/2, as in Llama.

    Args:
        dims: Sizes; the number of turned dimensions must be even.
        base: Longest wavelength over 2 pi.
        share: Share of each head's dimensions that turns, the first ones; the others see no position (GPT-NeoX, Phi).
        scaling: Stretches the angles to texts longer than those trained on: LinearScaling, NTK, DynamicNTK, YaRN,
            Llama3Scaling.
    """

    def __init__(
        self,
        dims: Dims,
        base: float = 10_000.0,
        share: float = 1.0,
        scaling: Callable[[Dims], Scaling] = Scaling,
    ) -> None:
        super().__init__(dims)
        if not 0 < share <= 1:
            raise SizeError("position.share", f"is {share}, must be above 0 and at most 1")
        self.rotary_dim = round(dims.head_size * share)
        if self.rotary_dim % 2 or not self.rotary_dim:
            raise SizeError("dims.head_dim" if share == 1 else "position.share",
                            f"makes {self.rotary_dim} of {dims.head_size} dimensions of a head turn, and RoPE turns "
                            "pairs: make it even")  # fmt: skip
        self.base = base
        self.scaling = scaling(dims)
        if self.rotary_dim < 4 and type(self.scaling) is not Scaling:
            raise SizeError("position.scaling", f"stretches slow waves more than fast ones, and {self.rotary_dim} "
                            "turned dimensions have one wave only; turn at least 4")  # fmt: skip

    @property
    def turns_all_keys(self) -> bool:  # type: ignore[override]
        """See the base class."""
        return self.scaling.depends_on_length

    def prepare(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Waves:
        """Cosines and sines."""
        frequencies = self.scaling.frequencies(self.base, self.rotary_dim, positions, dtype)
        angle = angles(positions, frequencies).unsqueeze(1)
        factor = self.scaling.attention_factor
        return angle.cos() * factor, angle.sin() * factor

    def rotate(self, q: Tensor, k: Tensor, q_state: Waves, k_state: Waves) -> tuple[Tensor, Tensor]:
        """Turns every pair."""
        return turn(q, q_state), turn(k, k_state)


class XPos(Position):
    """Rotary embedding whose waves also fade with distance (Sun et al., 2022, arXiv:2212.10554).

    Made for causal attention: queries grow as keys shrink with position, so the score of a pair fades by how far the
    key is behind. The growth is held as exponents of absolute positions: good to about 30,000 in float32.

    Args:
        dims: Sizes; the head size must be even.
        base: Longest wavelength over 2 pi.
        gamma: How little the fast waves fade, the slow ones not at all: 0.4 in the paper.
        scale: Distance at which the fading reaches its value.
    """

    def __init__(self, dims: Dims, base: float = 10_000.0, gamma: float = 0.4, scale: float = 512.0) -> None:
        super().__init__(dims)
        if dims.head_size % 2:
            raise SizeError("dims.head_dim", f"{dims.head_size} is odd, XPos turns pairs of dimensions: make it even")
        self.base, self.gamma, self.scale = base, gamma, scale

    def prepare(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Waves, Tensor]:
        """Waves, and the fading zeta^(n / scale), (B or 1, 1, T, K / 2)."""
        size = self.dims.head_size
        angle = angles(positions, inverse_frequencies(self.base, size, positions, dtype)).unsqueeze(1)
        share = torch.arange(0, size, 2, device=positions.device, dtype=dtype) / size
        zeta = ((share + self.gamma) / (1 + self.gamma)).log() / self.scale
        return (angle.cos(), angle.sin()), angles(positions, zeta).exp().unsqueeze(1)

    def rotate(
        self, q: Tensor, k: Tensor, q_state: tuple[Waves, Tensor], k_state: tuple[Waves, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Turns every pair; queries fade with their position and keys grow, so that the product fades with distance."""
        (q_waves, q_fade), (k_waves, k_fade) = q_state, k_state
        q_fade, k_fade = (fade.repeat(1, 1, 1, 2) for fade in (q_fade, 1 / k_fade))
        return (turn(q, q_waves) * q_fade).to(q.dtype), (turn(k, k_waves) * k_fade).to(k.dtype)


def turn(x: Tensor, waves: Waves) -> Tensor:
    """Turns the first R dimensions of (B, heads, T, K) by the angles of R / 2 waves; the rest stay."""
    cos, sin = (wave.to(x.dtype) for wave in waves)
    half = cos.shape[-1]
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat(turned if not rest.shape[-1] else (*turned, rest), dim=-1)
