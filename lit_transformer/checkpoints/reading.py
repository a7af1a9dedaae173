"""Reading a checkpoint, a file or a folder of parts: first that it is as written, then its content, never code."""

import contextlib
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lit_transformer.checkpoints.footer import FOOTER_BYTES, FORMAT, Footer, new_hash
from lit_transformer.checkpoints.manifest import Manifest, is_folder_of_parts
from lit_transformer.checkpoints.parts import check_parts
from lit_transformer.errors import EnvironmentFault, UserError

_FORCE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_CHUNK_BYTES = 1 << 22
_RECORD = re.compile(
    r"[^/]+/(data\.pkl|version|byteorder|data/\d+|\.format_version|\.storage_alignment|\.data/serialization_id)"
)


def read_footer(path: str | Path) -> Footer:
    """What the file says of itself, without reading the rest: quick, and proves nothing."""
    if _is_folder(path):
        return Manifest.read(Path(path)).label
    with _opened(path) as file:
        return _footer(Path(path), file)


def verify(path: str | Path) -> Footer:
    """Reads every byte of a checkpoint and compares with its digest.

    Raises:
        UserError: It is not a checkpoint, or it is damaged; the line says which, and which file of a folder.
    """
    if _is_folder(path):
        return Manifest.read(Path(path)).check(Path(path))
    with _opened(path) as file:
        return _verified(Path(path), file)


def read(path: str | Path) -> dict[str, Any]:
    """Verifies a checkpoint and reads it, on the CPU.

    Only tensors and plain data are ever built (``weights_only``); addresses and an environment that would turn that
    off are refused; every part must be of the same step.

    Raises:
        UserError: Not a checkpoint, damaged, or not plain data.
        EnvironmentFault: The file may not be read.
    """
    import torch

    path = Path(path)
    if _is_folder(path):
        from lit_transformer.checkpoints.sharded import read_sharded

        footer = Manifest.read(path).label
        checkpoint: Any = read_sharded(path)
    else:
        checkpoint, footer = _content(path)
    check_parts(path, checkpoint, footer)
    for name, value in checkpoint["state_dict"].items():
        if not isinstance(value, torch.Tensor):
            continue
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise UserError(f"{path}: {str(name)[:80]} is not a plain tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {str(name)[:80]} claims more elements than the file holds")
    return checkpoint  # type: ignore[no-any-return]


def read_plain(path: Path) -> dict[str, Any]:
    """The plain data beside the parts of a folder, verified as a checkpoint is.

    Raises:
        UserError: As ``read``.
    """
    content, _ = _content(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not what lies beside the parts of a checkpoint")
    return content


def is_checkpoint_file(path: Path) -> bool:
    """Whether a file ends as one that was written here, be it damaged or not."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - FOOTER_BYTES))
        return Footer.parse(file.read(FOOTER_BYTES)) is not None
    return False


def _content(path: Path) -> tuple[Any, Footer]:
    import torch

    with _opened(path) as file:
        footer = _verified(path, file)
        _check_records(path, file)
        file.seek(0)
        try:
            return torch.load(file, map_location="cpu", weights_only=True), footer
        except Exception as error:
            raise UserError(f"{path}: {_not_plain(error)}; it was not written by lit-transformer") from None


def _is_folder(path: str | Path) -> bool:
    _check_place(path)
    return is_folder_of_parts(Path(path))


def _check_place(path: str | Path) -> None:
    """Refuses what is opened nowhere."""
    if _ADDRESS.match(str(path)):
        raise UserError(
            f"{path}: is an address, and only local files are opened; download it and check its origin first"
        )
    if os.environ.get(_FORCE, "").strip().lower() not in ("", "0", "n", "no", "false"):
        raise UserError(f"{path}: not opened, because {_FORCE} is set and lets a checkpoint run code; unset it")


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[IO[bytes]]:
    _check_place(path)
    path = Path(path)
    try:
        # without O_NONBLOCK a pipe put in the file's place would hang us here
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint{_neighbours(path)}") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: could not be opened: {error.strerror}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: is a folder, not a checkpoint file{_neighbours(path / 'x')}")
        raise UserError(f"{path}: is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            if isinstance(error, EnvironmentFault):
                raise
            raise EnvironmentFault(f"{path}: could not be read: {error.strerror or error}") from error


def _neighbours(path: Path) -> str:
    with contextlib.suppress(OSError):
        names = sorted(str(p.relative_to(path.parent)) for p in path.parent.glob("**/*.ckpt"))[:5]
        if names:
            return f"; {path.parent} holds {', '.join(names)}"
    return ""


def _footer(path: Path, file: IO[bytes]) -> Footer:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise UserError(f"{path}: is empty (0 bytes): the program or disk that wrote it failed; use another checkpoint")
    file.seek(max(0, size - FOOTER_BYTES))
    footer = Footer.parse(file.read(FOOTER_BYTES))
    if footer is None:
        raise UserError(f"{path}: {_guess(file, size)}")
    if footer.format != FORMAT:
        raise UserError(f"{path}: has checkpoint format {footer.format}, this version reads {FORMAT}; update it")
    if footer.length + FOOTER_BYTES != size:
        raise UserError(
            f"{path}: is damaged: {size} bytes long, {footer.length + FOOTER_BYTES} were written; use another one"
        )
    return footer


def _verified(path: Path, file: IO[bytes]) -> Footer:
    footer = _footer(path, file)
    digest = new_hash()
    file.seek(0)
    rest = footer.length
    while rest:
        chunk = file.read(min(rest, _CHUNK_BYTES))
        if not chunk:
            raise UserError(f"{path}: became shorter while it was read; use another checkpoint")
        digest.update(chunk)
        rest -= len(chunk)
    if Footer.seal(digest, footer.step, footer.length).sha256 != footer.sha256:
        raise UserError(f"{path}: is damaged: its content does not match its SHA-256; use another checkpoint")
    return footer


def _check_records(path: Path, file: IO[bytes]) -> None:
    """The archive's table: plain stored records only, which cannot unfold to more than the file holds."""
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    try:
        records = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError, OverflowError) as error:
        raise UserError(f"{path}: is not a PyTorch archive ({_one_line(error)})") from None
    if sum(record.file_size for record in records) > size or any(record.compress_type for record in records):
        raise UserError(f"{path}: is an archive that unfolds to more than its size; not opened")
    strange = [record.filename for record in records if not _RECORD.fullmatch(record.filename)]
    if strange or not records:
        raise UserError(
            f"{path}: is an archive of something else{f' ({strange[0][:60]!r})' if strange else ''}, not a checkpoint"
        )


def _guess(file: IO[bytes], size: int) -> str:
    """Says what a file without a footer probably is."""
    file.seek(max(0, size - 4096))
    if b"lit-transformer checkpoint" in file.read():
        return "is damaged at its end; use another checkpoint"
    file.seek(0)
    head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        with contextlib.suppress(Exception):
            names = zipfile.ZipFile(file).namelist()
            if any(name.endswith("/data.pkl") for name in names):
                return (
                    "is a PyTorch file without lit-transformer's footer: by another program, or cut at the end; "
                    "weights from elsewhere come in as safetensors"
                )
            return (
                f"is a zip archive of something else ({names[0][:60]!r}), not a checkpoint"
                if names
                else "is a zip file"
            )
        return "is cut short: it begins like a checkpoint and its end is missing; use another checkpoint"
    if head.startswith(b"\x80"):
        return "is a bare pickle, which could run code; it is not opened"
    if size > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "is a safetensors file: weights only, without a run's state; give it to --init_from or `import`"
    if head.startswith(b"\x1f\x8b"):
        return "is a gzip file; unpack it first"
    if head[:1].isascii() and not head.strip(bytes(range(32, 127)) + b"\t\r\n"):
        return "is a text file, not a checkpoint"
    return "is not a lit-transformer checkpoint, or its end is missing or damaged; use another checkpoint"


def _not_plain(error: Exception) -> str:
    """What torch found, without its advice on how to open the file nevertheless."""
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"holds more than data: opening it would call {named[1][:80]}, which is refused"
    return f"its content is no checkpoint's ({type(error).__name__})"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
