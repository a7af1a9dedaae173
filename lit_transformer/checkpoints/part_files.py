"""PyTorch's writer and reader of the files of a distributed checkpoint, as far as they can be trusted.

The index is a pickle, which could run code; only the handful of classes that an index is made of are let through.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from lit_transformer.checkpoints.manifest import INDEX
from lit_transformer.errors import UserError

_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_NAMES = {
    ("torch", "Size"), ("torch", "device"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"), ("pathlib", "Path"), ("pathlib._local", "PosixPath"), ("builtins", "set"),
}  # fmt: skip


class PartWriter(FileSystemWriter):
    """PyTorch's, whose errors are those of the disk: its archives answer a failed write with one of their own."""

    def write_data(self, *args: Any, **kwargs: Any) -> Any:
        """As PyTorch's."""
        try:
            return super().write_data(*args, **kwargs)
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            raise cause or error from error


class PartReader(FileSystemReader):
    """PyTorch's, whose index cannot run code, and is read once.

    Args:
        path: The folder.

    Raises:
        UserError: It claims more bytes than there are.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with (path / INDEX).open("rb") as file:
            self.metadata = _Unpickler(file).load()
        if not isinstance(self.metadata, Metadata):
            raise pickle.UnpicklingError("the index is of another kind")
        self.metadata.storage_meta = getattr(self.metadata, "storage_meta", None) or StorageMeta()
        self.metadata.storage_meta.load_id = self.load_id
        for place in (self.metadata.storage_data or {}).values():
            if Path(place.relative_path).name != place.relative_path:
                raise pickle.UnpicklingError(f"the index leads out of the folder: {place.relative_path}")
        stored = self.metadata.state_dict_metadata
        self.sizes = {name: entry for name, entry in stored.items() if isinstance(entry, TensorStorageMetadata)}
        held = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        if sum(entry.size.numel() * entry.properties.dtype.itemsize for entry in self.sizes.values()) > held:
            raise UserError(f"{path}: its index claims more than the {held:,} bytes that the folder holds")

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index."""
        return self.metadata  # type: ignore[no-any-return]

    def empty(self, name: str) -> Tensor:
        """Memory for a whole tensor."""
        return torch.empty(self.sizes[name].size, dtype=self.sizes[name].properties.dtype)


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
