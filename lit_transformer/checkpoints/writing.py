"""Writing a checkpoint so that a kill, a full disk or a power cut leaves the old one or the new one, never less."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lit_transformer.checkpoints.footer import FOOTER_BYTES, Footer, new_hash
from lit_transformer.errors import EnvironmentFault, UserError

_END_OF_ZIP = struct.Struct("<4s4H2LH")  # the last record of a zip archive; its last field is the comment's length
_BUFFER_BYTES = 1 << 20
PARTIAL_SUFFIX = ".partial"
_FOLDER = re.compile(r"\d{8,}-[0-9a-f]{8}\.parts")  # what a checkpoint that is a folder is called: a link leads to it


def write(path: str | Path, payload: Mapping[str, Any], step: int) -> Footer:
    """Writes ``payload`` to ``path`` and replaces what was there in one step.

    The bytes are streamed to a temporary file beside the target (a rename is atomic on one file system only), hashed on
    the way, flushed to the disk, renamed, and the folder is flushed. Nothing is held in memory twice.

    Args:
        path: The checkpoint file.
        payload: Tensors and plain data; what ``torch.load(weights_only=True)`` can read.
        step: Number of optimizer steps done, kept in the file's footer.

    Returns:
        The footer that was written. Only then does the path hold the new checkpoint.

    Raises:
        EnvironmentFault: The disk is full, the folder cannot be written, ...; what was at ``path`` is untouched.
        UserError: The payload holds objects that could not be read back without running code.
    """
    import torch

    path = Path(path)
    with _replacing(path) as (partial, descriptor):
        stream = _Stream(descriptor)
        with_crc = torch.serialization.get_crc32_options()
        # the archive's own checksums cost as much as the digest, see less, and torch never compares them
        torch.serialization.set_crc32_options(False)
        try:
            torch.save(payload, stream)  # type: ignore[arg-type]
            footer = stream.finish(step)
        finally:
            torch.serialization.set_crc32_options(with_crc)
            stream.close()
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(partial))
        if unsafe:
            raise UserError(
                f"{path}: not written, because it could not be read back safely: it holds {', '.join(sorted(unsafe))}; "
                "keep only tensors, numbers, strings, lists and dicts in state_dict() and hyperparameters"
            )
    return footer


def write_with(path: str | Path, writer: Callable[[Path], None]) -> None:
    """Replaces ``path`` in one step by a file that ``writer`` makes at a temporary path beside it."""
    with _replacing(Path(path)) as (partial, _):
        writer(partial)


def replace(partial: Path, path: Path) -> None:
    """Moves a file or link to its place; a folder there (a copy whose links were followed) makes room first."""
    aside = path.with_name(f"{path.stem}.old{path.suffix}")  # its name is that of a checkpoint: it is one until the end
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
    os.replace(partial, path)
    flush_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: str | Path) -> list[Path]:
    """Removes what killed writers left in ``folder``, and folders of parts that no link leads to.

    What a live writer writes is locked and stays.
    """
    swept = []
    for stray in Path(folder).glob(f".*{PARTIAL_SUFFIX}"):
        if stray.is_symlink() and not stray.exists():
            stray.unlink(missing_ok=True)
            swept.append(stray)
        swept += _swept(stray)
    with contextlib.suppress(OSError):
        entries = list(Path(folder).iterdir())
        led_to = {Path(os.readlink(entry)).name for entry in entries if entry.is_symlink()}
        for entry in entries:
            if _FOLDER.fullmatch(entry.name) and entry.name not in led_to:
                swept += _swept(entry)
    return swept


def _swept(stray: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        descriptor = os.open(stray, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # of a link: what it leads to
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stray.is_dir() and not stray.is_symlink():
                shutil.rmtree(stray)
            else:
                stray.unlink()
            return [stray]
        finally:
            os.close(descriptor)
    return []


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[tuple[Path, int]]:
    """A temporary file beside ``path`` that replaces it when the block ends well and disappears when it does not."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):  # not every network file system locks; then strays are swept by age only
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield partial, descriptor
            os.fsync(descriptor)
            replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        finally:
            os.close(descriptor)
    except (UserError, EnvironmentFault):
        raise
    except OSError as error:
        raise fault(path, error) from error


def flush_folder(folder: Path) -> None:
    """Has the names in a folder written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fault(path: Path, error: OSError) -> EnvironmentFault:
    """What could not be written, why, and what to do."""
    reason = error.strerror or str(error)
    intact = "; the checkpoint that was there is intact" if path.exists() else ""
    remedy = "check that the folder exists and can be written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "free some space, or write elsewhere"
    return EnvironmentFault(f"{path}: could not be written: {reason}{intact}; {remedy}")


class _Stream:
    """The file object that ``torch.save`` writes to: hashes on the way, in parallel to the disk.

    After the first error it swallows what still comes: torch's archive writer answers a failed write with an error of
    its own from a destructor. ``finish`` raises the first error.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hash = new_hash()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-hash")
        self._buffer = bytearray()
        self._length = 0
        self._error: OSError | None = None

    def write(self, data: memoryview) -> int:
        if len(data) + len(self._buffer) <= _BUFFER_BYTES:
            self._buffer += data
        else:
            # the end-of-archive record is torch's last write and a small one: it is always in the buffer at finish
            self._emit(self._buffer)
            self._buffer = bytearray()
            if len(data) <= _BUFFER_BYTES:
                self._buffer += data
            else:
                self._emit(data)
        return len(data)

    def flush(self) -> None:
        """Nothing: torch flushes before the end of the archive is known."""

    def finish(self, step: int) -> Footer:
        end = len(self._buffer) - _END_OF_ZIP.size
        *record, comment = _END_OF_ZIP.unpack_from(self._buffer, end)
        if record[0] != b"PK\x05\x06" or comment:
            raise RuntimeError("torch.save no longer ends its archive with a plain end-of-archive record")
        _END_OF_ZIP.pack_into(self._buffer, end, *record, FOOTER_BYTES)
        self._emit(self._buffer)
        footer = Footer.seal(self._hash, step, self._length)
        self._put(footer.to_bytes())
        if self._error is not None:
            raise self._error
        return footer

    def close(self) -> None:
        self._hasher.shutdown()

    def _emit(self, data: memoryview | bytearray) -> None:
        if self._error is not None:
            return
        hashing = self._hasher.submit(self._hash.update, data)
        self._put(data)
        self._begin_flush(len(data))
        hashing.result()
        self._length += len(data)

    def _begin_flush(self, size: int) -> None:
        """Has the system write to the disk what it holds so far, so that the fsync at the end finds little to do."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._descriptor, self._length, size, os.POSIX_FADV_DONTNEED)

    def _put(self, data: memoryview | bytearray | bytes) -> None:
        rest = memoryview(data)
        while rest and self._error is None:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                self._error = error
