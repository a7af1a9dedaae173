"""Parameter groups: what decays and what does not."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
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


class AdamW(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter, 2019, arXiv:1711.05101) in its fused form: one pass over the weights.

    Args:
        params: Parameters or groups; the task fills them in.
        lr: Peak learning rate; the schedule multiplies it.
        betas: Decay of the running mean and of the running square.
        eps: Added to the root of the running square.
        weight_decay: Shrinks matrices by ``lr * weight_decay`` each step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
