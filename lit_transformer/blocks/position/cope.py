"""CoPE: positions counted by what the tokens say."""

import torch
from torch import Tensor, nn

from lit_transformer.blocks.position.base import Bias, Position, at_least_float32
from lit_transformer.dims import Dims, SizeError


class GateBias(Bias):
    """``q . e[p]``, where p counts the gates between key and query.

    Args:
        q: Queries (B, H, T, K), the last T of the S tokens.
        k: Keys (B, G, S, K).
        table: (N, K), a vector for each whole number p.
    """

    def __init__(self, q: Tensor, k: Tensor, table: Tensor) -> None:
        self.q, self.k = q, k
        self.scores = (q @ table.to(q.dtype).T).to(at_least_float32(q))

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        """See the base class."""
        t, s = self.q.shape[2], self.k.shape[2]
        row = torch.arange(s - t, s, device=self.q.device)[rows].unsqueeze(-1)
        q, scores = self.q[:, :, rows], self.scores[:, :, rows]
        first, end, _ = columns.indices(s)
        # A key's number counts the gates from it up to the query, so the keys behind this block are needed too.
        k = self.k[:, :, first:].repeat_interleave(q.shape[1] // self.k.shape[1], dim=1)
        gates = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).to(scores.dtype).sigmoid()
        column = torch.arange(first, s, device=self.q.device)
        gates = gates.masked_fill(column > row, 0.0)
        number = gates.flip(-1).cumsum(-1).flip(-1)[..., : end - first].clamp(max=scores.shape[-1] - 1)
        below = number.floor()
        low, high = (scores.gather(-1, x.long()) for x in (below, number.ceil()))
        return torch.lerp(low, high, number - below)


class CoPE(Position):
    """Positions counted by gates of query and key, so that "three sentences ago" can be said (Golovneva et al., 2024).

    arXiv:2405.18719. Made for causal attention: a key counts the gates from itself up to the query, whether or not the
    mask shows them; keys behind the query count none.

    Args:
        dims: Sizes.
        size: Number of whole positions that have a vector; larger counts are cut. Left out: ``max_len``.
    """

    def __init__(self, dims: Dims, size: int | None = None) -> None:
        super().__init__(dims)
        size = dims.length if size is None else size
        if size < 2:
            raise SizeError("position.size", f"is {size} in CoPE, must be at least 2")
        self.table = nn.Parameter(torch.empty(size, dims.head_size))

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Zeros, as in the authors' code: training starts without any position."""
        nn.init.zeros_(parameter)

    def bias(self, q: Tensor, k: Tensor, q_state: Tensor, k_state: Tensor) -> Bias:
        """See the base class."""
        return GateBias(q, k, self.table)
