"""A position with a norm of the embedded stream behind it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.norms import LayerNorm, Norm
from lit_transformer.blocks.position.absolute import Learned
from lit_transformer.blocks.position.base import Bias, Position
from lit_transformer.dims import Dims


class NormedPosition(Position):
    """Another position, and a norm of the embedded stream behind it: one a stack, where ``Embedding.norm`` is one for
    both stacks of an encoder-decoder (BART: Lewis et al., 2020, arXiv:1910.13461).

    Args:
        dims: Sizes.
        position: Makes the position.
        norm: Makes the norm.
    """

    def __init__(
        self, dims: Dims, position: Callable[[Dims], Position] = Learned, norm: Callable[[Dims], Norm] = LayerNorm
    ) -> None:
        super().__init__(dims)
        self.position = position(dims)
        self.norm = norm(dims)

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """As the position inside."""
        return self.position.relative

    @property
    def turns_all_keys(self) -> bool:  # type: ignore[override]
        """As the position inside."""
        return self.position.turns_all_keys

    @property
    def has_bias(self) -> bool:
        """As the position inside."""
        return self.position.has_bias

    @property
    def has_values(self) -> bool:
        """As the position inside."""
        return self.position.has_values

    def prepare(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Any:
        """As the position inside."""
        return self.position.prepare(positions, dtype)

    def embed(self, x: Tensor, state: Any) -> Tensor:
        """As the position inside, then the norm."""
        y: Tensor = self.norm(self.position.embed(x, state))
        return y

    def rotate(self, q: Tensor, k: Tensor, q_state: Any, k_state: Any) -> tuple[Tensor, Tensor]:
        """As the position inside."""
        return self.position.rotate(q, k, q_state, k_state)

    def bias(self, q: Tensor, k: Tensor, q_state: Any, k_state: Any) -> Bias | None:
        """As the position inside."""
        return self.position.bias(q, k, q_state, k_state)

    def values(self, weights: Tensor, q_state: Any, k_state: Any) -> Tensor:
        """As the position inside."""
        return self.position.values(weights, q_state, k_state)
