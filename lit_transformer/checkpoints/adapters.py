"""Adapters in a checkpoint: beside the weights that they change, and folded into them for everybody who only reads."""

from collections.abc import Mapping

import torch
from torch import Tensor

DOWN, UP, SCALE, MAGNITUDE = "lora_A", "lora_B", "lora_scale", "lora_magnitude"
"""The names of an adapter's tensors, beside ``weight``."""


def is_adapter(name: str) -> bool:
    """Whether a weight of this name is part of an adapter."""
    return name.rpartition(".")[2] in (DOWN, UP, SCALE, MAGNITUDE)


def adapted_weight(weight: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """The weight with its adapter folded in: ``W + s B A``, with DoRA's magnitude each row of that length."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    change = parts[UP].to(wide.dtype) @ parts[DOWN].to(wide.dtype)
    wide = wide + parts[SCALE].to(wide.dtype) * change
    if MAGNITUDE in parts:
        wide = wide * (parts[MAGNITUDE].to(wide.dtype) / wide.norm(dim=1)).unsqueeze(1)
    return wide.to(weight.dtype)


def without_adapters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with all adapters folded in."""
    result = {name: value for name, value in weights.items() if not is_adapter(name)}
    for owner in {name.rpartition(".")[0] for name in weights if name.endswith(f".{DOWN}")}:
        parts = {part: weights[f"{owner}.{part}"] for part in (DOWN, UP, SCALE, MAGNITUDE)
                 if f"{owner}.{part}" in weights}  # fmt: skip
        weight = result.get(f"{owner}.weight")
        fits = (
            weight is not None
            and {UP, SCALE} <= parts.keys()
            and weight.ndim == parts[UP].ndim == parts[DOWN].ndim == 2
        )
        if weight is None or not fits or (parts[UP].shape[0], parts[DOWN].shape[1]) != tuple(weight.shape):
            return dict(weights)  # its names and shapes are refused by name, where they are compared
        result[f"{owner}.weight"] = adapted_weight(weight, parts)
    return result
