"""Parameter groups: what decays and what does not."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay as the optimizer says; vectors (norms, biases) do not.

    Returns:
        Groups as torch optimizers take them, each with a ``name``, empty ones left out.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups: list[dict[str, Any]] = []
    if matrices:
        groups.append({"params": matrices, "name": "matrices"})
    if vectors:
        groups.append({"params": vectors, "name": "vectors", "weight_decay": 0.0})
    return groups
