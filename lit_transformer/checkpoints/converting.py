"""One checkpoint in another form: a plain file, a safetensors file, a folder of parts; DeepSpeed's are read only."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_transformer.checkpoints.loading import Weights, task_weights
from lit_transformer.checkpoints.reading import read
from lit_transformer.checkpoints.sharded import is_sharded_checkpoint, read_sharded, write_sharded
from lit_transformer.checkpoints.writing import write, write_with
from lit_transformer.checkpoints.zero import is_zero_checkpoint, read_zero
from lit_transformer.errors import UserError

KEPT = ("global_step", "epoch", "pytorch-lightning_version", "hyper_parameters", "vocabulary", "tokenizer",
        "tokenizer_sha256", "source_tokenizer", "classes", "layout", "text_fields", "averaged")  # fmt: skip
"""What it takes to use the weights: not the state of a run, which stays in the plain file."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Args:
        path: Where.
        kind: In which form.
        tensors: Number of weights, shared ones once.
        digest: SHA-256 of all weights with their names, types and shapes, the same in every form.
        cast: What was done to their type; empty: nothing.
    """

    path: Path
    kind: str
    tensors: int
    digest: str
    cast: str


def read_any(path: Path, trusted: bool = False) -> dict[str, Any]:
    """A checkpoint of any form, as the content of a plain one.

    Args:
        path: File or folder.
        trusted: Whether DeepSpeed's pickles may be opened.

    Raises:
        UserError: It is none, or a damaged one.
    """
    if path.is_dir():
        if is_sharded_checkpoint(path):
            return {"global_step": 0, **read_sharded(path)}
        if is_zero_checkpoint(path):
            return {"global_step": 0, **read_zero(path, trusted)}
        raise UserError(f"{path}: is a folder without an index of parts (.metadata, or DeepSpeed's latest)")
    return _read_safetensors(path) if path.suffix == ".safetensors" else read(path)


def is_folder_of_parts(path: Path) -> bool:
    """Whether a folder is a checkpoint, and not one that holds some."""
    return is_sharded_checkpoint(path) or is_zero_checkpoint(path)


def convert(
    source: str | Path,
    target: str | Path,
    weights: Weights = "raw",
    dtype: str | None = None,
    trusted: bool = False,
) -> Converted:
    """Writes the weights of a checkpoint in another form, with what it takes to use them.

    The form follows the target's name: ``.safetensors``, ``.ckpt``, or a folder for ``torch.distributed.checkpoint``.
    The state of the run (optimizer, clock) is not taken along: to go on with a run, keep its own checkpoint.

    Args:
        source: A plain file, a safetensors file, or a folder.
        target: What to write; must not be there yet.
        weights: ``raw`` the trained ones, ``ema`` their average, ``auto`` the average where there is one.
        dtype: float32, float16 or bfloat16; left out: as they are.
        trusted: Whether DeepSpeed's pickles may be opened.

    Raises:
        UserError: The source is no checkpoint, or there is something at the target.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise UserError(f"--output {target}: is there already; name another")
    content = read_any(source, trusted)
    values, cast = _cast(task_weights(source, content, weights), dtype)
    description = {key: content[key] for key in KEPT if key in content}
    kind = write_any(target, values, description)
    once, _ = untied(values)
    return Converted(target, kind, len(once), digest(values), cast)


def write_any(target: Path, values: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    """Writes weights in the form that the target's name says; the name of the form."""
    once, tied = untied(values)
    if target.suffix == ".safetensors":
        from safetensors.torch import save_file

        metadata = {"format": "pt", "tied": json.dumps(tied), "lit_transformer": json.dumps(description)}
        write_with(target, lambda partial: save_file(dict(once), partial, metadata=metadata))
        return "safetensors"
    if target.suffix == ".ckpt":
        step = int(description.get("global_step", 0))
        state = {name: once[tied.get(name, name)] for name in values}
        write(target, {"global_step": step, **description, "state_dict": state}, step)
        return "plain"
    if target.suffix:
        raise UserError(f"--output {target}: is neither .safetensors, .ckpt nor a folder's name")
    step = int(description.get("global_step", 0))
    state = {name: once[tied.get(name, name)] for name in values}
    write_sharded(target, {"global_step": step, **description, "state_dict": state}, step, linked=False)
    return "sharded"


def untied(values: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each weight once, and the other names of those that have several."""
    first: dict[tuple[int, tuple[int, ...], int], str] = {}
    once: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, value in values.items():
        place = (value.untyped_storage().data_ptr(), tuple(value.shape), int(value.storage_offset()))
        if value.numel() and place in first:
            tied[name] = first[place]
        else:
            first[place] = name
            once[name] = value.contiguous()
    return once, tied


def digest(values: Mapping[str, Tensor]) -> str:
    """SHA-256 of all weights: names in order, types, shapes, bytes."""
    hashed = hashlib.sha256()
    for name in sorted(values):
        value = values[name].detach().cpu().contiguous()
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        hashed.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _cast(values: Mapping[str, Tensor], dtype: str | None) -> tuple[dict[str, Tensor], str]:
    """The weights in another type, and what that did to them."""
    if dtype is None:
        return dict(values), ""
    wanted, done, found = DTYPES[dtype], {}, dict[str, Tensor]()
    kinds, error = set(), 0.0
    for name, value in values.items():
        if not value.is_floating_point() or value.dtype == wanted:
            found[name] = value
            continue
        place = (value.untyped_storage().data_ptr(), tuple(value.shape), int(value.storage_offset()))
        if place not in done:
            done[place] = value.to(wanted)
            kinds.add(str(value.dtype).removeprefix("torch."))
            off = (done[place].double() - value.double()).abs().max() if value.numel() else 0.0
            error = max(error, float(off))
        found[name] = done[place]
    if not kinds:
        return found, ""
    exact = "exact" if error == 0 else f"rounded, by {error:.3g} at most"
    return found, f"cast from {', '.join(sorted(kinds))} to {dtype}: {exact}"


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping
        tied = json.loads(metadata.get("tied", "{}"))
        description = json.loads(metadata.get("lit_transformer", "{}"))
        for alias, name in tied.items():
            weights[alias] = weights[name]
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: is no safetensors file, or a damaged one: {' '.join(str(error).split())[:120]}"
        ) from None
    return {"global_step": 0, **description, "state_dict": weights}
