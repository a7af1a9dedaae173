"""Which heads do the same: distances between their weights, and an order that puts like beside like."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lit_transformer.analysis.record import AttentionLayer
from lit_transformer.errors import UserError


@torch.no_grad()
def head_distances(layers: Sequence[AttentionLayer], size: int = 64) -> Float[Tensor, "R R"]:
    """Jensen-Shannon divergence between every two heads, in bits (0 alike, 1 disjoint), the mean over queries.

    Args:
        layers: Attentions with the same queries and keys; their heads are counted through.
        size: Queries looked at together.

    Raises:
        UserError: They differ in queries or keys.
    """
    if len({layer.shape for layer in layers}) != 1:
        raise UserError("head similarity: the attentions differ in queries or keys; choose those of one stack")
    count = sum(layer.heads for layer in layers)
    total, queries = torch.zeros(count, count, dtype=torch.float64), 0.0
    for start in range(0, layers[0].shape[0], size):
        rows = slice(start, min(start + size, layers[0].shape[0]))
        weights = torch.cat([layer.weights(rows=rows) for layer in layers], dim=1).double()
        weights = weights.movedim(1, 0).flatten(1, 2)  # (R, B t, S)
        entropy = torch.special.entr(weights).sum(-1)
        counted = weights.sum(-1).gt(0).all(0)
        for i in range(count):
            middle = torch.special.entr((weights[i] + weights) / 2).sum(-1)
            total[i] += ((middle - (entropy[i] + entropy) / 2) * counted).sum(-1).cpu()
        queries += float(counted.sum())
    return (total / max(queries, 1) / torch.log(torch.tensor(2.0, dtype=torch.float64))).clamp(min=0)


def clustered(distances: Float[Tensor, "R R"]) -> list[int]:
    """An order of the heads in which like ones are neighbours: joined pair by pair, nearest first, by mean distance."""
    groups = [[i] for i in range(len(distances))]
    while len(groups) > 1:
        best = min(
            ((i, j) for i in range(len(groups)) for j in range(i)),
            key=lambda pair: float(distances[groups[pair[0]]][:, groups[pair[1]]].mean()),
        )
        joined = groups.pop(best[0])
        groups[best[1]] = groups[best[1]] + joined
    return groups[0] if groups else []
