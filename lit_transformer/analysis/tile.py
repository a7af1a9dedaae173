"""Some queries' weights, and what metrics ask of them, each asked once and answered in one reading of memory."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


def entropy(weights: Float[Tensor, "*size S"]) -> Float[Tensor, "*size"]:
    """Entropy of each row, in nats."""
    # The logarithm of a number this small times no weight is 0; without it, it would not be a number.
    found: Tensor = -torch.linalg.vecdot(weights, (weights + 1e-30).log_())
    return found


@dataclass(frozen=True)
class Tile:
    """Some queries of one attention, and its keys up to the last one that any of them sees.

    Args:
        weights: (B, H, t, s).
        rows: (t,) index of each query among the keys.
        q_tokens: (B, t) tokens of the queries.
        all_tokens: (B, S) tokens of all keys.
    """

    weights: Float[Tensor, "B H t s"]
    rows: Int[Tensor, " t"]
    q_tokens: Int[Tensor, "B t"]
    all_tokens: Int[Tensor, "B S"]

    @property
    def k_tokens(self) -> Int[Tensor, "B s"]:
        """Tokens of the keys whose weights are here."""
        return self.all_tokens[:, : self.weights.shape[-1]]

    @property
    def columns(self) -> Int[Tensor, " S"]:
        """Index of each key."""
        return torch.arange(self.k_tokens.shape[1], device=self.rows.device)

    @cached_property
    def visible(self) -> Bool[Tensor, "B t S"]:
        """Keys that some head looks at: those that the mask shows."""
        return self.weights.amax(1) > 0

    @cached_property
    def counted(self) -> Bool[Tensor, "B t"]:
        """The queries that see anything at all (padding does not)."""
        return self.visible.any(-1)

    @cached_property
    def entropy(self) -> Float[Tensor, "B H t"]:
        """Of each query's weights, in nats."""
        return entropy(self.weights)

    def on(self, chosen: Shaped[Tensor, "B t S"]) -> Float[Tensor, "B H t"]:
        """The weight that each query puts on the chosen keys, or the mean of a number of each key.

        Args:
            chosen: What each query's keys count; (B, 1, S) where it is the same for all queries.
        """
        chosen = chosen.to(self.weights.dtype)
        if chosen.shape[1] == 1:
            return (self.weights @ chosen.unsqueeze(-1)).squeeze(-1)
        # One product for each query, with all heads: the weights are read once, and nothing of their size is written.
        return (self.weights.transpose(1, 2) @ chosen.unsqueeze(-1)).squeeze(-1).transpose(1, 2)

    def at(self, place: Int[Tensor, " t"]) -> Float[Tensor, "B H t"]:
        """The weight that each query puts on one key; 0 on one that is not there."""
        there = (place >= 0) & (place < self.weights.shape[-1])
        index = torch.where(there, place, 0).expand(self.weights.shape[:-1]).unsqueeze(-1)
        return self.weights.gather(-1, index).squeeze(-1) * there
