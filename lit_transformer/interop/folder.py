"""A folder in the Hugging Face layout: small JSON files, weights in safetensors files, read with care."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_transformer.errors import EnvironmentFault, UserError

LARGEST_JSON = 64 << 20
"""A tokenizer of 250,000 tokens takes some 20 MB."""

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class Folder:
    """The files of a pre-trained model. Nothing outside of the folder is read, and no code is run.

    Args:
        path: The folder.
        allow_pickle: Whether ``pytorch_model.bin`` is opened where there is no safetensors file; even then only tensors
            are built from it.

    Raises:
        UserError: It is no folder.
    """

    def __init__(self, path: str | Path, allow_pickle: bool = False) -> None:
        self.path = Path(path)
        self.allow_pickle = allow_pickle
        if not self.path.is_dir():
            raise UserError(f"{path}: is no folder")
        self._roots = [self.path.resolve()]
        if self.path.resolve().parent.name == "snapshots":  # a folder of the hub's cache links to its blobs
            self._roots.append(self.path.resolve().parent.parent / "blobs")

    def file(self, name: str) -> Path | None:
        """A file of the folder; None where there is none.

        Raises:
            UserError: The name leads out of the folder, or to something that is no file.
        """
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise UserError(f"{self.path}: names a file {name[:80]!r} outside of the folder, which is not read")
        path = self.path / name
        try:
            found = path.resolve(strict=True)
            mode = found.stat().st_mode
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.path}: {name[:80]!r} cannot be read: {error}") from None
        if not any(found.is_relative_to(root) for root in self._roots):
            raise UserError(f"{path}: is a link out of the folder, which is not followed")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: is no regular file")
        return found

    def text(self, name: str) -> str | None:
        """The text of a small file; None where there is none."""
        path = self.file(name)
        if path is None:
            return None
        try:
            if path.stat().st_size > LARGEST_JSON:
                raise UserError(f"{self.path / name}: has {path.stat().st_size:,} bytes, more than any such file")
            return path.read_text("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{self.path / name}: is not UTF-8 text") from None
        except OSError as error:
            raise EnvironmentFault(f"{self.path / name}: cannot be read: {error.strerror}") from error

    def json(self, name: str) -> dict[str, Any] | None:
        """The keys and values of a JSON file; None where there is none."""
        text = self.text(name)
        if text is None:
            return None
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path / name}: is not JSON: {str(error)[:100]}") from None
        if not isinstance(content, dict):
            raise UserError(f"{self.path / name}: holds no keys and values")
        return content

    def weights(self) -> "WeightFiles":
        """The weights, wherever in the folder they are.

        Raises:
            UserError: There are none, or a file of them is missing or damaged.
        """
        index = self.json(INDEX)
        if index is not None:
            return WeightFiles(self, _shards(self, index))
        if self.file(WEIGHTS) is not None:
            return WeightFiles(self, [WEIGHTS])
        pickles = [name for name in PICKLES if self.file(name) is not None]
        if pickles and not self.allow_pickle:
            raise UserError(
                f"{self.path}: holds {pickles[0]} and no safetensors file; a pickle can run code and is not opened: "
                "look for a safetensors version, or give --allow_pickle if you trust it"
            )
        if pickles:
            return PickledFiles(self, pickles)
        raise UserError(f"{self.path}: holds neither {WEIGHTS} nor {INDEX}")


def _shards(folder: Folder, index: dict[str, Any]) -> list[str]:
    table = index.get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise UserError(f"{folder.path / INDEX}: holds no weight_map from names to files")
    names = sorted(set(table.values()))
    for name in names:
        if folder.file(name) is None:
            raise UserError(f"{folder.path}: {name} is missing, which {INDEX} names ({len(names)} files in all)")
    return names


class WeightFiles:
    """The tensors of some safetensors files: their shapes at once, their values one by one.

    Args:
        folder: Where they lie.
        names: The files.

    Raises:
        UserError: A file is no safetensors file, or two hold the same weight.
    """

    def __init__(self, folder: Folder, names: list[str]) -> None:
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self._file_of: dict[str, str] = {}
        for name in names:
            self._look(name)

    def _look(self, name: str) -> None:
        with self._opened(name) as file:
            for key in file.keys():  # noqa: SIM118 it is no dict
                if key in self._file_of:
                    raise UserError(f"{self.folder.path}: {key} is in {self._file_of[key]} and in {name}")
                view = file.get_slice(key)
                self._file_of[key] = name
                self.shapes[key] = tuple(view.get_shape())
                self.dtypes[key] = view.get_dtype()

    def _opened(self, name: str) -> Any:
        from safetensors import safe_open

        path = self.folder.file(name)
        if path is None:
            raise UserError(f"{self.folder.path}: {name} is missing")
        try:
            return safe_open(str(path), framework="pt")  # checks that every tensor lies within the file
        except Exception as error:  # the library raises its own, which is no public class
            raise UserError(f"{self.folder.path / name}: is no good safetensors file: {str(error)[:120]}") from None

    def read(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """The values of some weights, each file opened once."""
        for file_name in sorted({self._file_of[name] for name in names}):
            with self._opened(file_name) as file:
                for name in names:
                    if self._file_of[name] == file_name:
                        yield name, file.get_tensor(name)


class PickledFiles(WeightFiles):
    """The tensors of PyTorch files, where the user trusts them; nothing but tensors is built."""

    def _look(self, name: str) -> None:
        index = self.folder.json(name) if name.endswith(".json") else None
        names = [name] if index is None else _shards(self.folder, index)
        self._values: dict[str, Tensor] = {}
        for each in names:
            path = self.folder.file(each)
            try:
                content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:
                said = " ".join(str(error).split())[:120]
                raise UserError(f"{self.folder.path / each}: holds more than tensors: {said}") from None
            self._values |= {key: value for key, value in content.items() if isinstance(value, Tensor)}
        for key, value in self._values.items():
            self.shapes[key], self.dtypes[key] = tuple(value.shape), str(value.dtype)

    def read(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """See the base class."""
        for name in names:
            yield name, self._values[name]
