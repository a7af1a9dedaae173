"""Parameter groups: what decays and what does not."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Parameters by role: ``matrices`` (products), ``embeddings`` (tables and heads) and ``vectors`` (norms, biases).

    The first two decay as the optimizer says, vectors do not.

    Returns:
        Groups as torch optimizers take them, each with a ``name``, empty ones left out.
    """
    products = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    parameters = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2 and id(p) in products]
    embeddings = [p for p in parameters if p.ndim >= 2 and id(p) not in products]
    vectors = [p for p in parameters if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "name": "matrices"},
        {"params": embeddings, "name": "embeddings"},
        {"params": vectors, "name": "vectors", "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
