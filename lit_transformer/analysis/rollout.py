"""From the attention of single layers to how the whole stack connects its output to its input."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lit_transformer.analysis.record import AttentionLayer
from lit_transformer.errors import UserError

FLOW_LIMIT = 128
"""Longest text whose flow is computed: a maximum flow through layers x T x T edges for every token."""


def with_residual(layer: AttentionLayer, share: float = 0.5) -> Float[Tensor, "B T T"]:
    """Mean weights of the heads, mixed with the stream that goes past them; every row sums to 1.

    Args:
        layer: Self-attention of one text.
        share: Part of the stream that goes past.
    """
    weights = layer.weights().mean(1)
    same = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    blind = weights.sum(-1, keepdim=True) == 0
    return torch.where(blind, same, (1 - share) * weights + share * same)


def rollout(layers: Sequence[AttentionLayer], share: float = 0.5) -> Float[Tensor, "L B T T"]:
    """How much of each input token is in each token behind layer 1, 2, ...: products of the layers' matrices.

    Attention rollout (Abnar & Zuidema, 2020, arXiv:2005.00928). Rows sum to 1.

    Args:
        layers: The self-attentions of one stack, in order (``record.of("stack")``).
        share: Part of the stream that goes past each attention.

    Raises:
        UserError: No layer, or one whose queries are not its keys.
    """
    check(layers)
    matrices = [with_residual(layer, share) for layer in layers]
    through = [matrices[0]]
    for matrix in matrices[1:]:
        through.append(matrix @ through[-1])
    return torch.stack(through)


def flow(layers: Sequence[AttentionLayer], token: int = -1, row: int = 0, share: float = 0.5) -> Float[Tensor, " T"]:
    """Attention flow (the same paper): the most that can flow from each input token to one output token.

    Weights are capacities of the edges between layers.

    Args:
        layers: The self-attentions of one stack, in order.
        token: The output token.
        row: Row of the batch.
        share: Part of the stream that goes past each attention.

    Raises:
        UserError: No layer, one whose queries are not its keys, or a text longer than ``FLOW_LIMIT``.
    """
    import networkx

    check(layers)
    length = layers[0].shape[1]
    if length > FLOW_LIMIT:
        raise UserError(f"attention flow: the text has {length} tokens, at most {FLOW_LIMIT} are followed; use rollout")
    token %= length
    graph = networkx.DiGraph()
    for depth, layer in enumerate(layers):
        matrix = with_residual(layer, share)[row].tolist()
        for i, weights in enumerate(matrix):
            graph.add_edges_from(
                ((depth, j), (depth + 1, i), {"capacity": weight}) for j, weight in enumerate(weights) if weight > 0
            )
    target = (len(layers), token)
    values = [
        networkx.maximum_flow_value(graph, (0, j), target) if graph.has_node((0, j)) else 0.0 for j in range(length)
    ]
    return torch.tensor(values)


def check(layers: Sequence[AttentionLayer]) -> None:
    """Refuses what is no stack of self-attentions over one text."""
    if not layers:
        raise UserError("attention rollout: the record has no self-attention of that stack")
    for layer in layers:
        queries, keys = layer.shape
        if layer.cross or queries != keys:
            raise UserError(f"attention rollout: {layer.name} has {queries} queries over {keys} keys; record one "
                            "forward pass over the whole text")  # fmt: skip
