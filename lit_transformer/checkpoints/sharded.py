"""Checkpoints in the layout of ``torch.distributed.checkpoint``: a folder with a part of the weights from each rank.

Its index is a pickle, which could run code; only the handful of classes that an index is made of are let through.
"""

import hashlib
import json
import os
import pickle
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from lit_transformer.errors import EnvironmentFault, UserError

INDEX, MANIFEST, LIGHTNING = ".metadata", "lit-transformer.json", "meta.pt"
_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_NAMES = {
    ("torch", "Size"), ("torch", "device"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"), ("pathlib", "Path"), ("pathlib._local", "PosixPath"), ("builtins", "set"),
}  # fmt: skip
_PREFIX = "state_dict."  # what Lightning puts before the names


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether a folder is one."""
    return (path / INDEX).is_file()


def read_sharded(path: Path) -> dict[str, Any]:
    """The weights of a folder as whole tensors, and what is written beside them.

    Raises:
        UserError: A file is missing, or is not what the manifest says; the index is none.
    """
    manifest = _manifest(path)
    try:
        reader = _Reader(path)
        stored = reader.read_metadata().state_dict_metadata
        sizes = {name: entry for name, entry in stored.items() if isinstance(entry, TensorStorageMetadata)}
        held = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        if sum(_bytes(entry) for entry in sizes.values()) > held:
            raise UserError(f"{path}: its index claims more than the {held:,} bytes that the folder holds")
        wanted = [name for name in sizes if name.startswith(_PREFIX)] or list(sizes)
        state: dict[str, Any] = {
            name: torch.empty(sizes[name].size, dtype=sizes[name].properties.dtype) for name in wanted
        }
        with _alone():
            dcp.load(state, storage_reader=reader, no_dist=True)
    except (OSError, EOFError, KeyError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: is no sharded checkpoint, or a damaged one: {_one_line(error)}") from error
    weights = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    for alias, name in manifest.get("tied", {}).items():
        weights[alias] = weights[name]
    return {**_lightning(path), **manifest.get("description", {}), "state_dict": weights}


def write_sharded(path: Path, weights: Mapping[str, Tensor], tied: Mapping[str, str], description: Any) -> None:
    """Writes a folder that any number of ranks loads; it appears once it is whole.

    Args:
        path: The folder, which must not be there yet.
        weights: Each once.
        tied: Other names of them.
        description: Plain data to be kept beside them.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        with _alone():
            dcp.save(dict(weights), storage_writer=FileSystemWriter(partial, sync_files=True), no_dist=True)
        files = {file.name: _digest(file) for file in sorted(partial.iterdir())}
        text = json.dumps({"format": 1, "files": files, "tied": dict(tied), "description": description})
        (partial / MANIFEST).write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise EnvironmentFault(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone() -> Iterator[None]:
    """Without PyTorch's warning that there are no other ranks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


class _Reader(FileSystemReader):
    """PyTorch's, whose index cannot run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / INDEX).open("rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("the index is of another kind")
        metadata.storage_meta = getattr(metadata, "storage_meta", None) or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        for place in (metadata.storage_data or {}).values():
            if Path(place.relative_path).name != place.relative_path:
                raise pickle.UnpicklingError(f"the index leads out of the folder: {place.relative_path}")
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = module in _MODULES and name.lstrip("_")[:1].isupper() and "." not in name
        if (
            known
            or (module, name) in _NAMES
            or (module == "torch" and isinstance(getattr(torch, name, 0), torch.dtype))
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it would call {module}.{name}, which is refused")


def _manifest(path: Path) -> dict[str, Any]:
    """What we wrote beside the parts, once every part is the one that was written; empty where others wrote them."""
    try:
        data = (path / MANIFEST).read_bytes()
    except FileNotFoundError:
        return {}
    text, _, digest = data.removesuffix(b"\n").partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise UserError(f"{path / MANIFEST}: is damaged; use another checkpoint")
    try:
        manifest: dict[str, Any] = json.loads(text)
        for name, expected in manifest["files"].items():
            if Path(name).name != name or not (path / name).is_file():
                raise UserError(f"{path}: its part {name} is missing; copy the whole folder")
            if _digest(path / name) != expected:
                raise UserError(f"{path}: its part {name} is damaged; use another checkpoint")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path / MANIFEST}: is damaged: {_one_line(error)}") from error
    return manifest


def _lightning(path: Path) -> dict[str, Any]:
    """What Lightning writes beside the parts."""
    if not (path / LIGHTNING).is_file():
        return {}
    try:
        content: dict[str, Any] = torch.load(path / LIGHTNING, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path / LIGHTNING}: holds more than plain data, which is not opened") from error
    return content


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _bytes(entry: TensorStorageMetadata) -> int:
    return int(entry.size.numel() * entry.properties.dtype.itemsize)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
