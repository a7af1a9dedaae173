"""Weights out of a checkpoint into a safetensors file, which anybody can open without trust."""

import json
from pathlib import Path

from torch import Tensor

from lit_transformer.checkpoints.loading import Weights, network_weights
from lit_transformer.checkpoints.reading import read
from lit_transformer.checkpoints.writing import write_with


def export_safetensors(path: str | Path, target: str | Path, weights: Weights = "auto") -> Path:
    """Writes the network's weights of a checkpoint to a safetensors file.

    A tied weight is written once; the file's metadata names what shares it, under ``tied``.

    Args:
        path: A checkpoint file.
        target: The file to write, replaced in one step.
        weights: ``ema`` the average, ``raw`` the trained ones, ``auto`` the average where there is one.

    Returns:
        The file that was written.
    """
    from safetensors.torch import save_file

    target = Path(target)
    values = network_weights(path, read(path), weights)
    first: dict[tuple[int, tuple[int, ...], int], str] = {}
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, value in values.items():
        place = (value.untyped_storage().data_ptr(), tuple(value.shape), int(value.storage_offset()))
        if value.numel() and place in first:
            tied[name] = first[place]
        else:
            first[place] = name
            kept[name] = value.contiguous()
    metadata = {"format": "pt", "tied": json.dumps(tied)}
    write_with(target, lambda partial: save_file(kept, partial, metadata=metadata))
    return target
