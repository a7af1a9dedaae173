"""Why a query looks at a key: the vectors of one head, and what is done to their product."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lit_transformer.analysis.record import AttentionLayer

LONGEST_TABLE = 256
"""Most tokens of a text whose biases are kept pair by pair, where they are no function of the distance."""


@dataclass
class Vectors:
    """What one attention compared, over all calls.

    Args:
        q: Queries (H, T, K) as they were compared.
        k: Keys (G, S, K) as they were compared.
        v: Values (G, S, V).
        plain_q: Queries before the position turned them; None where nothing did, or it is not known.
        plain_k: The same of the keys.
    """

    q: Float[Tensor, "H T K"]
    k: Float[Tensor, "G S K"]
    v: Float[Tensor, "G S V"]
    plain_q: Float[Tensor, "H T K"] | None
    plain_k: Float[Tensor, "G S K"] | None


def vectors(layer: AttentionLayer) -> Vectors | None:
    """The vectors of an attention; None where there are none, or steps that compared in different ways (latents)."""
    calls = layer.calls
    if not calls or len({call.q.shape[-1] for call in calls}) > 1:
        return None
    q, k, v = torch.cat([call.q[0] for call in calls], dim=1), calls[-1].k[0], calls[-1].v[0]
    plain_q, plain_k = None, None
    if all(call.plain_q is not None and call.plain_k is not None for call in calls):
        plain_q = torch.cat([call.plain_q[0] for call in calls if call.plain_q is not None], dim=1)
        plain_k = torch.cat([call.plain_k[0] for call in calls if call.plain_k is not None], dim=1)
        if plain_q.shape != q.shape or plain_k.shape != k.shape or (plain_q.equal(q) and plain_k.equal(k)):
            plain_q, plain_k = None, None
    return Vectors(q, k, v, plain_q, plain_k)


def log_sums(layer: AttentionLayer, head: int, size: int = 256) -> Float[Tensor, " T"]:
    """Logarithm of what softmax divides by, for each query of a head."""
    found = []
    for call in layer.calls:
        for start in range(0, call.q.shape[2], size):
            scores = call.scores(slice(head, head + 1), slice(start, start + size))
            found.append(scores[0, 0].logsumexp(-1))
    return torch.cat(found)


@dataclass
class Biases:
    """What the position adds to the scores of one attention.

    Args:
        by_distance: (H, T + S - 1) by query index minus key index, from 1 - S on; None where it is no function of it.
        table: (H, T, S); None where the text is too long for it, or the other one says it.
    """

    by_distance: Float[np.ndarray, "H N"] | None = None
    table: Float[np.ndarray, "H T S"] | None = None


def biases(layer: AttentionLayer) -> Biases | None:
    """What the position adds; None where it adds nothing."""
    if not layer.calls or layer.calls[0].bias is None:
        return None
    queries, keys = layer.shape
    if queries <= LONGEST_TABLE and keys <= LONGEST_TABLE:
        whole = torch.stack([_row(layer, i, keys) for i in range(queries)], dim=1)
    else:
        chosen = sorted({0, 1, queries // 3, queries // 2, queries - 2, queries - 1})
        whole = torch.stack([_row(layer, i, keys) for i in chosen], dim=1)
    numbers = torch.arange(queries) if whole.shape[1] == queries else torch.tensor(chosen)
    place = numbers.unsqueeze(1) - torch.arange(keys) + keys - 1  # (t, S)
    known = whole.isfinite()
    line = torch.zeros(whole.shape[0], queries + keys - 1)
    index = place.expand_as(whole).flatten(1)
    line.scatter_(1, torch.where(known.flatten(1), index, 0), torch.where(known, whole, 0.0).flatten(1))
    line.scatter_(1, index, torch.where(known, whole, line.gather(1, index).view_as(whole)).flatten(1))
    again = line.gather(1, index).view_as(whole)
    if torch.allclose(torch.where(known, whole, 0.0), torch.where(known, again, 0.0), rtol=1e-3, atol=1e-4):
        return Biases(by_distance=line.numpy().astype("<f4"))
    return Biases(table=whole.numpy().astype("<f2")) if whole.shape[1] == queries else Biases()


def _row(layer: AttentionLayer, query: int, keys: int) -> Float[Tensor, "H S"]:
    """The biases of one query; infinite for keys that came later."""
    start = 0
    for call in layer.calls:
        length = call.q.shape[2]
        if query < start + length:
            break
        start += length
    assert call.bias is not None
    row = call.bias(slice(query - start, query - start + 1), slice(None))[0, :, 0].float().cpu()
    row = row.expand(layer.heads, -1)
    return torch.nn.functional.pad(row, (0, keys - row.shape[1]), value=torch.inf)
