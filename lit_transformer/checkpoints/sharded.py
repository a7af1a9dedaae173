"""Checkpoints that are folders, in the layout of ``torch.distributed.checkpoint``: every rank writes its own part.

Beside the parts of the tensors lie their index, a file of the rest (``meta.pt``: loops, clock, recipe, vocabulary) that
is a checkpoint file without weights, and the manifest.
"""

import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from lit_transformer.checkpoints.folders import new_folder, publish
from lit_transformer.checkpoints.footer import Footer
from lit_transformer.checkpoints.manifest import INDEX, MANIFEST, STATE, Manifest, described
from lit_transformer.checkpoints.part_files import PartReader, PartWriter
from lit_transformer.checkpoints.parts import check_parts
from lit_transformer.checkpoints.reading import is_checkpoint_file, read_plain
from lit_transformer.checkpoints.writing import fault, write
from lit_transformer.errors import EnvironmentFault, LitTransformerError, UserError

T = TypeVar("T")
WEIGHTS, PLACES = "state_dict", "parts"


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether a folder is one, of ours or of another program."""
    return (path / INDEX).is_file() or (path / MANIFEST).is_file()


def write_sharded(path: str | Path, payload: Mapping[str, Any], step: int, linked: bool = True) -> Footer:
    """Writes a folder that any number of ranks reads; it appears once it is whole.

    All ranks call it: each writes, hashes and flushes its own part of every DTensor, the first one the rest. What fails
    on one fails on all.

    Args:
        path: What it is called. The folder gets a name of its own, and ``path`` becomes a link to it in one step.
        payload: As for a file; tensors may be DTensors.
        step: Number of optimizer steps done.
        linked: False: ``path`` is the folder itself, and nothing is there yet.

    Raises:
        EnvironmentFault: The disk is full, a folder that the ranks do not share, ...; what was at ``path`` is intact.
        UserError: The payload holds objects that could not be read back without running code.
    """
    path = Path(path)
    plain, places, tensors = _apart(payload)
    with ExitStack() as stack:
        folder, once = _first(path, lambda: (stack.enter_context(new_folder(path)), _once(tensors)))
        writer = PartWriter(folder, sync_files=True)
        with _alone():
            try:
                dcp.save({name: tensors[name] for name in set(once.values())}, storage_writer=writer, no_dist=_single())
            except CheckpointException as error:
                raise _said(path, next(iter(error.failures.values()))[0]) from error
        files = _each(path, lambda: {file.name: described(file) for file in folder.glob(f"__{_rank()}_*")})

        def finish() -> Footer:
            content = {**plain, PLACES: [[place, once[name]] for place, name in places]}
            write(folder / STATE, content, step)
            parts = {name: entry for each in files for name, entry in each.items()}
            unseen = [name for name, entry in parts.items() if not _has(folder / name, entry[0])]
            if unseen:
                raise EnvironmentFault(f"{path}: its part {unseen[0]} was written by another host and is not here; "
                                       "checkpoints must lie on a file system that all hosts share")  # fmt: skip
            manifest = Manifest(step, {**parts, **{name: described(folder / name) for name in (INDEX, STATE)}})
            publish(folder, path, step, manifest.to_bytes(), linked)
            return manifest.label

        return _first(path, finish)


def read_sharded(path: Path) -> dict[str, Any]:
    """The content of a folder with whole tensors, every byte of it verified where it is ours.

    Raises:
        UserError: A file is missing, or is not what the manifest says; the index is none.
    """
    ours = _is_ours(path)
    if ours:
        Manifest.read(path).check(path)
    with _damage(path):
        folder = path.resolve()
        reader = PartReader(folder)
        places, content = _beside(folder, reader) if ours else _of_others(folder, reader)
        state = {name: reader.empty(name) for name in {name for _, name in places}}
        with _alone():
            dcp.load(state, storage_reader=reader, no_dist=True)
        return _together(content, places, state.__getitem__)


def read_shared(path: Path) -> dict[str, Any]:
    """The content of a folder with ``Stored`` in the place of its parts, for a strategy whose ranks keep some of each.

    All ranks call it: each verifies some of the files.

    Raises:
        UserError: As ``read_sharded``.
    """
    manifest = Manifest.read(path)
    names = sorted(manifest.files)[_rank() :: 1 if _single() else dist.get_world_size()]
    _each(path, lambda: manifest.check(path, names))
    with _damage(path):
        folder = path.resolve()
        reader = PartReader(folder)
        places, content = _beside(folder, reader)
        found = _together(content, places, lambda name: Stored(reader, name))
    check_parts(path, found, manifest.label)
    return found


class Stored:
    """A tensor that lies in a folder of parts.

    Args:
        reader: Of the folder.
        name: The tensor's.
    """

    def __init__(self, reader: PartReader, name: str) -> None:
        self.reader = reader
        self.name = name

    @property
    def shape(self) -> torch.Size:
        """Of the whole tensor."""
        return self.reader.sizes[self.name].size

    @property
    def dtype(self) -> torch.dtype:
        """Its type."""
        return self.reader.sizes[self.name].properties.dtype

    def part_of(self, like: Tensor) -> Tensor:
        """What this process holds of a tensor that is spread like another one; no more than that is read."""
        value = torch.empty_like(like, dtype=self.dtype) if isinstance(like, DTensor) else self.reader.empty(self.name)
        with _damage(Path(self.reader.path)), _alone():
            dcp.load({self.name: value}, storage_reader=self.reader, no_dist=True)
        return value.to_local() if isinstance(value, DTensor) else value


def _apart(payload: Mapping[str, Any]) -> tuple[Any, list[tuple[list[Any], str]], dict[str, Tensor]]:
    """Plain data, where in it tensors are missing, and those: all weights, and all else of which a rank has a part."""
    places: list[tuple[list[Any], str]] = []
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, place: list[Any]) -> Any:
        if isinstance(value, DTensor) or (isinstance(value, Tensor) and place[0] == WEIGHTS):
            name = ".".join(map(str, place))
            places.append((place, name))
            tensors[name] = value.detach()
            return None
        if isinstance(value, Tensor):
            return value.detach().cpu()
        if isinstance(value, Mapping):
            return {key: walk(each, [*place, key]) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [walk(each, [*place, number]) for number, each in enumerate(value)]
        return value

    return walk(payload, []), places, tensors


def _together(content: Any, places: list[tuple[list[Any], str]], tensor: Callable[[str], Any]) -> dict[str, Any]:
    """What ``_apart`` took apart."""
    for (*way, last), name in places:
        inner = content
        for key in way:
            inner = inner[key]
        inner[last] = tensor(name)
    return content  # type: ignore[no-any-return]


def _once(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The name under which each tensor is written: those that share their memory have one."""
    first: dict[tuple[Any, ...], str] = {}
    names: dict[str, str] = {}
    for name, tensor in tensors.items():
        part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        place = (part.untyped_storage().data_ptr(), part.storage_offset(), tuple(tensor.shape))
        names[name] = first.setdefault(place, name) if part.numel() else name
    return names


def _is_ours(path: Path) -> bool:
    """Whether a folder has, or had, a manifest."""
    return (path / MANIFEST).exists() or is_checkpoint_file(path / STATE)


def _beside(folder: Path, reader: PartReader) -> tuple[list[tuple[list[Any], str]], dict[str, Any]]:
    """Places of tensors, and the rest, of a folder of ours."""
    content = read_plain(folder / STATE)
    places = [(list(place), str(name)) for place, name in content.pop(PLACES)]
    unknown = [name for _, name in places if name not in reader.sizes]
    if unknown:
        raise KeyError(f"its index does not know {unknown[0]}")
    return places, content


def _of_others(folder: Path, reader: PartReader) -> tuple[list[tuple[list[Any], str]], dict[str, Any]]:
    """Places of tensors, and the rest, of a folder of another program: Lightning's are called ``state_dict.NAME``."""
    content: dict[str, Any] = {}
    if (folder / STATE).is_file():
        try:
            content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{folder / STATE}: holds more than plain data, which is not opened") from error
    prefix = f"{WEIGHTS}."
    names = [name for name in reader.sizes if name.startswith(prefix)] or list(reader.sizes)
    return [([WEIGHTS, name.removeprefix(prefix)], name) for name in names], {**content, WEIGHTS: {}}


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What PyTorch makes of a damaged folder, in one line."""
    errors = (OSError, EOFError, LookupError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError)
    try:
        yield
    except (*errors, CheckpointException, pickle.UnpicklingError) as error:
        if isinstance(error, LitTransformerError):
            raise
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path}: is no sharded checkpoint, or a damaged one: {said}") from error


@contextmanager
def _alone() -> Iterator[None]:
    """Without PyTorch's warning that there are no other ranks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")
        yield


def _single() -> bool:
    return not dist.is_initialized()


def _rank() -> int:
    return 0 if _single() else dist.get_rank()


def _has(file: Path, size: int) -> bool:
    return file.is_file() and os.stat(file).st_size == size


def _first(path: Path, work: Callable[[], T]) -> T:
    """What the first rank's work gave; where it failed, it fails on all."""
    return _each(path, work if _rank() == 0 else lambda: None)[0]  # type: ignore[return-value]


def _each(path: Path, work: Callable[[], T]) -> list[T]:
    """What the work gave on every rank; where it failed on one, it fails on all."""
    error: Exception | None = None
    value: T | None = None
    try:
        value = work()
    except Exception as caught:
        error = caught
    if _single():
        found: list[Any] = [(value, error)]
    else:
        found = [None] * dist.get_world_size()
        dist.all_gather_object(found, (value, error and _said(path, error)))
    if error is not None:
        raise _said(path, error) from error
    for _, other in found:
        if other is not None:
            raise other
    return [value for value, _ in found]


def _said(path: Path, error: BaseException) -> Exception:
    """An error as one that can be sent to other ranks."""
    if isinstance(error, LitTransformerError):
        return error
    if isinstance(error, OSError):
        return fault(path, error)
    return RuntimeError(f"{path}: {type(error).__name__}: {error}")
