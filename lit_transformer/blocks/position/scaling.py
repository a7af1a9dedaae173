"""How rotary angles are stretched to texts longer than those trained on: parts injected into ``RoPE``."""

import math

import torch
from torch import Tensor

from lit_transformer.dims import Dims, SizeError


def inverse_frequencies(base: float | Tensor, size: int, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Radians per position, (size / 2): base^(-2i / size)."""
    exponents = torch.arange(0, size, 2, device=positions.device, dtype=dtype) / size
    return 1.0 / base**exponents


class Scaling:
    """Base of the scalings, and itself none at all.

    Args:
        dims: Sizes.
    """

    depends_on_length = False
    """Whether the angles of a position change as the text grows."""

    def __init__(self, dims: Dims) -> None:
        self.dims = dims

    def frequencies(self, base: float, size: int, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Radians per position, (size / 2) or (B, 1, size / 2), for ``size`` turned dimensions."""
        return inverse_frequencies(base, size, positions, dtype)

    @property
    def attention_factor(self) -> float:
        """What cosines and sines are multiplied by."""
        return 1.0


class Stretch(Scaling):
    """Base of the scalings by a factor.

    Args:
        dims: Sizes.
        factor: How many times longer than those trained on texts may be.
        trained_len: Length of the texts trained on; left out: ``dims.max_len``.
    """

    def __init__(self, dims: Dims, factor: float = 4.0, trained_len: int | None = None) -> None:
        super().__init__(dims)
        if factor < 1:
            raise SizeError("scaling.factor", f"is {factor} in {type(self).__name__}, must be at least 1")
        if trained_len is not None and trained_len < 1:
            raise SizeError("scaling.trained_len", f"is {trained_len} in {type(self).__name__}, must be at least 1")
        self.factor = factor
        self._trained_len = trained_len

    @property
    def trained_len(self) -> int:
        """Length of the texts trained on."""
        return self.dims.length if self._trained_len is None else self._trained_len


class LinearScaling(Stretch):
    """Position interpolation: positions divided by the factor (Chen et al., 2023, arXiv:2306.15595).

    Args:
        dims: Sizes.
        factor: How many times longer than those trained on texts may be.
        trained_len: Not needed here.
    """

    def frequencies(self, base: float, size: int, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """See the base class."""
        return inverse_frequencies(base, size, positions, dtype) / self.factor


class NTK(Stretch):
    """NTK-aware: a larger base, so that slow waves are stretched by the factor and fast ones hardly (bloc97, 2023).

    Args:
        dims: Sizes.
        factor: How many times longer than those trained on texts may be.
        trained_len: Not needed here.
    """

    def frequencies(self, base: float, size: int, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """See the base class."""
        return inverse_frequencies(base * self.factor ** (size / (size - 2)), size, positions, dtype)


class DynamicNTK(Stretch):
    """NTK-aware with a base that grows with the row's length once it is past the trained one (emozilla, 2023).

    Up to ``trained_len`` it is plain RoPE. Beyond, all angles of a row depend on its length: keys are cached unturned
    and turned anew at every step, and what was computed for earlier tokens stays as it was when the text was shorter.

    Args:
        dims: Sizes.
        factor: How fast the base grows.
        trained_len: Length of the texts trained on; left out: ``dims.max_len``.
    """

    depends_on_length = True

    def frequencies(self, base: float, size: int, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """(B or 1, 1, size / 2), from the longest position of each row."""
        length = (positions.amax(-1) + 1).clamp(min=self.trained_len).to(dtype).view(-1, 1, 1)
        growth = self.factor * length / self.trained_len - (self.factor - 1)
        return inverse_frequencies(base * growth ** (size / (size - 2)), size, positions, dtype)


class YaRN(Stretch):
    """Fast waves as they are, slow ones interpolated, a ramp between; sharper attention (Peng et al., 2023).

    Paper: arXiv:2309.00071.

    Args:
        dims: Sizes.
        factor: How many times longer than those trained on texts may be.
        trained_len: Length of the texts trained on; left out: ``dims.max_len``.
        beta_fast: Waves that turn more often than this in ``trained_len`` stay as they are.
        beta_slow: Waves that turn less often than this are interpolated in full.
        temperature: What cosines and sines are multiplied by; left out: 0.1 ln(factor) + 1.
    """

    def __init__(
        self,
        dims: Dims,
        factor: float = 4.0,
        trained_len: int | None = None,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        temperature: float | None = None,
    ) -> None:
        super().__init__(dims, factor, trained_len)
        self.beta_fast, self.beta_slow = beta_fast, beta_slow
        self.temperature = temperature

    def frequencies(self, base: float, size: int, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """See the base class."""
        frequencies = inverse_frequencies(base, size, positions, dtype)
        low = max(math.floor(self._dimension(self.beta_fast, base, size)), 0)
        high = min(math.ceil(self._dimension(self.beta_slow, base, size)), size - 1)
        steps = torch.arange(size // 2, device=positions.device, dtype=dtype)
        ramp = ((steps - low) / max(high - low, 0.001)).clamp(0, 1)
        return torch.lerp(frequencies, frequencies / self.factor, ramp)

    def _dimension(self, turns: float, base: float, size: int) -> float:
        """The pair of dimensions that turns so many times in ``trained_len``."""
        return size * math.log(self.trained_len / (turns * 2 * math.pi)) / (2 * math.log(base))

    @property
    def attention_factor(self) -> float:
        """See the base class."""
        return 0.1 * math.log(self.factor) + 1.0 if self.temperature is None else self.temperature


class Llama3Scaling(Stretch):
    """Short waves as they are, long ones interpolated, smooth between: Llama 3.1's (arXiv:2407.21783).

    Args:
        dims: Sizes.
        factor: How many times longer than those trained on texts may be.
        trained_len: Length of the texts trained on; left out: ``dims.max_len``.
        low: Waves longer than ``trained_len / low`` are interpolated in full.
        high: Waves shorter than ``trained_len / high`` stay as they are.
    """

    def __init__(
        self, dims: Dims, factor: float = 8.0, trained_len: int | None = None, low: float = 1.0, high: float = 4.0
    ) -> None:
        super().__init__(dims, factor, trained_len)
        if high <= low:
            raise SizeError("scaling.high", f"is {high}, must be greater than low {low}")
        self.low, self.high = low, high

    def frequencies(self, base: float, size: int, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """See the base class."""
        frequencies = inverse_frequencies(base, size, positions, dtype)
        turns = self.trained_len * frequencies / (2 * math.pi)
        smooth = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return torch.lerp(frequencies / self.factor, frequencies, smooth)
