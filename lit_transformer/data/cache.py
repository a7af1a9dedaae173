"""The folder of things prepared once: entries named by what they were made from, written whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lit_transformer.errors import EnvironmentFault

MANIFEST = "manifest.json"


def default_folder() -> Path:
    """``$LIT_TRANSFORMER_CACHE``, or ``~/.cache/lit_transformer``."""
    named = os.environ.get("LIT_TRANSFORMER_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "lit_transformer"


class Cache:
    """Entries are folders named by a hash of their key; a manifest in each holds the sizes and hashes of its files.

    An entry is built in a folder beside its place and renamed into it. Processes that want the same entry wait for the
    one that builds it (where the file system has locks; else both build and the last one stays).

    Args:
        folder: Where entries are kept. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder).expanduser()

    def entry(self, kind: str, key: Mapping[str, object], build: Callable[[Path], None]) -> Path:
        """The folder of an entry. ``build`` writes its files into the folder it is given, if it must be made.

        Raises:
            EnvironmentFault: The cache cannot be written: a full disk or a missing permission.
        """
        name = f"{kind}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]}"
        place = self.folder / name
        if fault_of(place) is None:
            return place
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(name) as alone:
                fault = fault_of(place)
                if fault is not None:
                    if alone:  # so what lies beside it was left by a killed build
                        self._sweep(name)
                    self._rebuild(place, fault, key, build)
        except OSError as error:
            if isinstance(error, EnvironmentFault) or error.errno not in NOT_WRITABLE:
                raise
            raise EnvironmentFault(
                f"{self.folder}: cannot write the cache: {os.strerror(error.errno)}; "
                "name another folder by data.cache_dir or LIT_TRANSFORMER_CACHE"
            ) from error
        return place

    def _rebuild(self, place: Path, fault: str, key: Mapping[str, object], build: Callable[[Path], None]) -> None:
        if place.exists():
            print(f"Rebuilding {place}: {fault}.", file=sys.stderr)
        building = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=self.folder))
        try:
            build(building)
            seal(building, key)
            discarded = building.with_name(building.name + ".old")
            with contextlib.suppress(FileNotFoundError):
                place.rename(discarded)
            try:
                building.rename(place)
            except OSError:
                if fault_of(place) is not None:  # no lock, and another process was faster
                    raise
            shutil.rmtree(discarded, ignore_errors=True)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _sweep(self, name: str) -> None:
        for stale in self.folder.glob(f".{name}.*"):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        """Waits for other processes; False where the file system has no locks."""
        import fcntl

        with open(self.folder / f".{name}.lock", "w") as file:
            alone = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
                    raise
                alone = False
            yield alone


NOT_WRITABLE = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}


def seal(folder: Path, key: Mapping[str, object]) -> None:
    """Writes the manifest and puts everything on the disk."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            files[path.name] = {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            os.fsync(file.fileno())
    with (folder / MANIFEST).open("w") as file:
        json.dump({"key": key, "files": files, "written": time.strftime("%Y-%m-%dT%H:%M:%S")}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    folder.chmod(0o755)


def fault_of(folder: Path) -> str | None:
    """What is wrong with an entry; None if it is whole."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        for name, expected in files.items():
            with (folder / name).open("rb") as file:
                if os.fstat(file.fileno()).st_size != expected["bytes"]:
                    return f"{name} has another size than written"
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    return f"{name} is corrupt"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is corrupt"
    return None
