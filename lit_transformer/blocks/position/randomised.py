"""Randomised positions: a wrapper for training around any encoding."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.position.base import Bias, Position
from lit_transformer.blocks.position.rotary import RoPE
from lit_transformer.dims import Dims, SizeError


class Randomised(Position):
    """In training, ordered random draws from a longer range stand for the positions (Ruoss et al., 2023).

    arXiv:2305.16843: the network meets large positions and distances without long texts. In evaluation positions are
    what they are.

    Args:
        dims: Sizes.
        position: Makes the encoding inside; its table, if it has one, gets ``max_position`` rows.
        max_position: Positions are drawn from 0 ... max_position - 1; at least the longest text.
    """

    def __init__(self, dims: Dims, position: Callable[[Dims], Position] = RoPE, max_position: int = 8192) -> None:
        super().__init__(dims)
        if max_position < (dims.max_len or 1):
            raise SizeError("position.max_position", f"is {max_position} in Randomised, must be at least the longest "
                            f"text, {dims.max_len or 1}")  # fmt: skip
        self.position = position(replace(dims, max_len=max_position))
        self.max_position = max_position

    @property
    def relative(self) -> bool:  # type: ignore[override]
        """As the encoding inside."""
        return self.position.relative

    @property
    def turns_all_keys(self) -> bool:  # type: ignore[override]
        """As the encoding inside."""
        return self.position.turns_all_keys

    @property
    def has_bias(self) -> bool:
        """As the encoding inside."""
        return self.position.has_bias

    @property
    def has_values(self) -> bool:
        """As the encoding inside."""
        return self.position.has_values

    def prepare(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Any:
        """The inner encoding's state; in training, of positions that are drawn for each row."""
        return self.position.prepare(self.draw(positions) if self.training else positions, dtype)

    def draw(self, positions: Tensor) -> Tensor:
        """Each row's positions replaced by ordered draws: equal ones stay equal, smaller ones smaller."""
        count = positions.shape[-1] if positions.device.type != "cpu" else int(positions.max()) + 1
        if count > self.max_position:
            raise SizeError("position.max_position", f"is {self.max_position} and the text has {count} tokens")
        chance = torch.rand(positions.shape[0], self.max_position, device=positions.device)
        drawn = chance.topk(count, dim=-1).indices.sort(dim=-1).values
        return drawn.gather(-1, positions.clamp(0, count - 1))

    def embed(self, x: Tensor, state: Any) -> Tensor:
        """As the encoding inside."""
        return self.position.embed(x, state)

    def rotate(self, q: Tensor, k: Tensor, q_state: Any, k_state: Any) -> tuple[Tensor, Tensor]:
        """As the encoding inside."""
        return self.position.rotate(q, k, q_state, k_state)

    def bias(self, q: Tensor, k: Tensor, q_state: Any, k_state: Any) -> Bias | None:
        """As the encoding inside."""
        return self.position.bias(q, k, q_state, k_state)

    def values(self, weights: Tensor, q_state: Any, k_state: Any) -> Tensor:
        """As the encoding inside."""
        return self.position.values(weights, q_state, k_state)
