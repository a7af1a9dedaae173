"""Parameter groups: what decays and what does not, and which layer a parameter is in."""

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from lit_transformer.dims import SizeError
from lit_transformer.networks.parts import shape_of

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]


class ParameterGroups(list[dict[str, Any]]):
    """Groups as torch optimizers take them, and how deep each parameter lies.

    Args:
        groups: The groups.
        depths: By the identity of a parameter: 0 for embeddings, 1 and up for layers, above them what follows.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], depths: dict[int, int]) -> None:
        super().__init__(groups)
        self.depths = depths

    @property
    def top(self) -> int:
        """The depth of what follows the last layer."""
        return max(self.depths.values(), default=0)


def parameter_groups(network: nn.Module) -> ParameterGroups:
    """Parameters by role: ``matrices`` (products), ``embeddings`` (tables and heads) and ``vectors`` (norms, biases).

    The first two decay as the optimizer says, vectors do not. Frozen parameters are in no group.

    Returns:
        Groups, each with a ``name``, empty ones left out.

    Raises:
        SizeError: Everything is frozen.
    """
    products = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    parameters = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in parameters if len(shape_of(p)) >= 2 and id(p) in products]
    embeddings = [p for p in parameters if len(shape_of(p)) >= 2 and id(p) not in products]
    vectors = [p for p in parameters if len(shape_of(p)) < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "name": "matrices"},
        {"params": embeddings, "name": "embeddings"},
        {"params": vectors, "name": "vectors", "weight_decay": 0.0},
    ]
    if not parameters:
        raise SizeError("Freeze.parts", "freezes every parameter, so there is nothing to train")
    return ParameterGroups([group for group in groups if group["params"]], _depths(network))


def _depths(network: nn.Module) -> dict[int, int]:
    found: dict[int, int | None] = {}
    for name, parameter in network.named_parameters():
        layer = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
        if layer is not None:
            found[id(parameter)] = int(layer[1]) + 1
        else:
            found[id(parameter)] = 0 if "embedding" in name or ".position." in name else None
    top = max((depth for depth in found.values() if depth is not None), default=0) + 1
    return {key: top if depth is None else depth for key, depth in found.items()}


class LayerwiseDecay(Optimizer):
    """Makes another optimizer whose learning rate is lower the deeper a layer lies (ULMFiT: Howard & Ruder, 2018,
    arXiv:1801.06146): what is near the input is general and changes little in fine-tuning.

    What follows the last layer gets the full rate, the last layer ``decay`` times as much, and so on down to the
    embeddings.

    Args:
        params: Groups from ``parameter_groups``; the task fills them in.
        optimizer: Makes the optimizer.
        decay: Rate of a layer over that of the one above it.
    """

    def __new__(cls, params: Iterable[Any], optimizer: OptimizerFactory, decay: float = 0.8) -> "LayerwiseDecay":
        """The optimizer that ``optimizer`` makes: this class only groups."""
        if not 0 < decay <= 1:
            raise SizeError("optimizer.decay", f"is {decay}, must be above 0 and at most 1")
        if not isinstance(params, ParameterGroups):
            raise TypeError("LayerwiseDecay needs the groups of parameter_groups, which know the layers")
        groups: list[dict[str, Any]] = []
        for depth in range(params.top, -1, -1):  # the full rate first: it is the one that is logged
            for group in params:
                if inside := [p for p in group["params"] if params.depths[id(p)] == depth]:
                    groups.append({**group, "params": inside, "depth": depth})
        made = optimizer(ParameterGroups(groups, params.depths))
        for group in made.param_groups:
            group["lr"] *= decay ** (params.top - group["depth"])
        return cast("LayerwiseDecay", made)

    def __init__(self, params: Iterable[Any], optimizer: OptimizerFactory, decay: float = 0.8) -> None:
        raise AssertionError("__new__ returns another optimizer, so this is never called")
