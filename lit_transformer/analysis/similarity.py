"""Which heads do the same: distances between their weights, and an order that puts like beside like."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lit_transformer.analysis.record import AttentionLayer
from lit_transformer.analysis.tile import entropy
from lit_transformer.errors import UserError


@torch.no_grad()
def head_distances(
    layers: Sequence[AttentionLayer], size: int = 64, queries: int | None = None
) -> Float[Tensor, "R R"]:
    """Jensen-Shannon divergence between every two heads, in bits (0 alike, 1 disjoint), the mean over queries.

    Args:
        layers: Attentions with the same queries and keys; their heads are counted through.
        size: Queries looked at together.
        queries: Most queries that are looked at, spread evenly; left out: all.

    Raises:
        UserError: They differ in queries or keys.
    """
    if len({layer.shape for layer in layers}) != 1:
        raise UserError("head similarity: the attentions differ in queries or keys; choose those of one stack")
    count = sum(layer.heads for layer in layers)
    length = layers[0].shape[0]
    step = 1 if queries is None else -(-length // max(queries, 1))
    total, looked_at = torch.zeros(count, count, dtype=torch.float64), 0.0
    for start in range(0, length, size * step):
        rows = slice(start, min(start + size * step, length), step)
        weights = torch.cat([layer.weights(rows=rows) for layer in layers], dim=1)
        weights = weights.movedim(1, 0).flatten(1, 2)  # (R, B t, S)
        own = entropy(weights)
        counted = weights.sum(-1).gt(0).all(0)
        for i in range(count):
            middle = entropy((weights[i] + weights[i:]) / 2)
            total[i, i:] += ((middle - (own[i] + own[i:]) / 2) * counted).double().sum(-1).cpu()
        looked_at += float(counted.sum())
    total += total.triu(1).mT
    return (total / max(looked_at, 1) / torch.log(torch.tensor(2.0, dtype=torch.float64))).clamp(min=0)


def clustered(distances: Float[Tensor, "R R"]) -> list[int]:
    """An order of the heads in which like ones are neighbours: joined pair by pair, nearest first, by mean distance."""
    between = distances.double().clone().fill_diagonal_(torch.inf)
    groups = [[i] for i in range(len(distances))]
    alive = torch.ones(len(distances), dtype=torch.bool)
    for _ in range(len(distances) - 1):
        i, j = sorted(divmod(int(between.argmin()), len(distances)))
        sizes = len(groups[i]), len(groups[j])
        mean = (sizes[0] * between[i] + sizes[1] * between[j]) / sum(sizes)
        groups[i] += groups[j]
        alive[j] = False
        mean[~alive] = torch.inf
        mean[i] = torch.inf
        between[i], between[:, i] = mean, mean
        between[j], between[:, j] = torch.inf, torch.inf
    return groups[int(alive.nonzero()[0])] if groups else []
