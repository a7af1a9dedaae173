"""Checkpoints that are folders: written beside, published by one rename, and replaced by a link in one step."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from lit_transformer.checkpoints.manifest import MANIFEST
from lit_transformer.checkpoints.writing import PARTIAL_SUFFIX, fault, flush_folder, replace, sweep, write_with


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A locked temporary folder beside ``path``, which disappears at the end unless ``publish`` moved it."""
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise fault(path, error) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def publish(folder: Path, path: Path, step: int, manifest: bytes, linked: bool) -> None:
    """Gives a whole folder its manifest and its name, and has ``path`` lead to it in one step.

    A folder cannot replace another one in one step, a link can. What no link leads to any more is removed.

    Args:
        folder: Of ``new_folder``; its files are on the disk.
        path: The checkpoint.
        step: Number of optimizer steps done.
        manifest: Its text.
        linked: False: ``path`` is the folder itself.
    """
    with (folder / MANIFEST).open("wb") as file:
        file.write(manifest)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(folder)
    if not linked:
        os.rename(folder, path)
        flush_folder(path.parent)
        return
    home = path.with_name(f"{step:08d}-{secrets.token_hex(4)}.parts")
    os.rename(folder, home)
    flush_folder(path.parent)
    _link(home.name, path)
    sweep(path.parent)


def keep(path: Path, new: Path) -> None:
    """Gives a checkpoint a second name; its bytes are shared until ``path`` is replaced, where that can be."""
    if path.is_symlink():
        _link(os.readlink(path), new)
    else:
        write_with(new, lambda partial: _linked(path, partial))


def remove(path: Path) -> None:
    """Removes a checkpoint: a file, a folder of parts, or a link to one and what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    sweep(path.parent)


def _linked(source: Path, target: Path) -> None:
    """A hard link, or a copy where there are none."""
    target.unlink()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _link(target: str, path: Path) -> None:
    """Has ``path`` lead to ``target``, in one step."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    os.symlink(target, partial)
    replace(partial, path)
