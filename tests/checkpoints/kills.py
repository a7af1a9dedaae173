"""Killing writers, filling disks: what happens to the file that was there."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lit_transformer.checkpoints import read, sweep, writing
from lit_transformer.errors import LitTransformerError
from tests.checkpoints.files import good, payload


def forked(work: Callable[[], int | None]) -> int:
    """Starts ``work`` in a forked process; its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work() or 0
        except LitTransformerError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return child


def wait(child: int) -> int:
    """The exit code of a child; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole(path: Path, at_least: int = 0) -> bool:
    """Whether the file verifies, holds one step's values throughout, and is no older than it was."""
    try:
        content = read(path)
    except LitTransformerError:
        return False
    step = content["global_step"]
    return step >= at_least and all(bool((value == float(step)).all()) for value in content["state_dict"].values())


def kill_writers(folder: Path, times: int, size: int = 400_000, seed: int = 0) -> dict[str, int]:
    """Kills a process that writes one checkpoint after the other, at random moments."""
    path, chance = folder / "last.ckpt", random.Random(seed)
    torn = mid_write = 0
    good(path, 1, size)
    for _ in range(times):
        before = read(path)["global_step"]

        def work(before: int = before) -> None:
            for step in range(before + 1, before + 1000):
                good(path, step, size)

        child = forked(work)
        time.sleep(chance.uniform(0.001, 0.08))
        os.kill(child, signal.SIGKILL)
        wait(child)
        mid_write += any(folder.glob(".*.partial"))
        torn += not whole(path, before)
    sweep(folder)
    return {"kills": times, "in the middle of a write": mid_write, "torn or lost": torn, "stray": _strays(folder)}


def kill_at_first_byte(folder: Path, times: int, size: int = 40_000) -> dict[str, int]:
    """Kills a writer at the moment when the target changes for the first time, as seen from outside.

    A replaced file changes its inode or its size at that moment; a file that is written in place is torn by this.
    """
    path = folder / "last.ckpt"
    torn = 0
    good(path, 1, size)
    for _ in range(times):
        before = path.stat()
        step = read(path)["global_step"]
        child = forked(lambda step=step: good(path, step + 1, size) and 0)
        while True:
            with contextlib.suppress(FileNotFoundError):
                now = path.stat()
                if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
                    os.kill(child, signal.SIGKILL)
                    break
        wait(child)
        torn += not whole(path, step)
    sweep(folder)
    return {"kills": times, "torn or lost": torn, "stray": _strays(folder)}


def kill_at_every_call(folder: Path, size: int = 4000) -> dict[str, int]:
    """Kills a writer before each system call that it makes on the file system, one after the other."""
    path = folder / "last.ckpt"
    good(path, 1, size)
    torn = calls = 0
    for number in range(1, 200):
        step = read(path)["global_step"]

        def work(number: int = number, step: int = step) -> None:
            left = [number]

            class Deadly:
                def __getattr__(self, name: str) -> object:
                    original = getattr(os, name)
                    if name not in ("open", "write", "posix_fadvise", "fsync", "replace", "close"):
                        return original

                    def call(*args: object, **options: object) -> object:
                        left[0] -= 1
                        if left[0] == 0:
                            if name == "write":  # half of it, then the power goes
                                original(args[0], bytes(args[1])[: len(args[1]) // 2])  # type: ignore[call-overload, arg-type]
                            os.kill(os.getpid(), signal.SIGKILL)
                        return original(*args, **options)

                    return call

            writing.os = Deadly()  # type: ignore[assignment]
            good(path, step + 1, size)

        if wait(forked(work)) == 0:
            break
        calls += 1
        torn += not whole(path, step)
    sweep(folder)
    return {"kills": calls, "torn or lost": torn, "stray": _strays(folder)}


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path | None]:
    """A file system of this size; ``None`` where it cannot be mounted."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(["mount", *options], check=False).returncode
    ):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill_disk(disk: Path, times: int, seed: int = 0) -> dict[str, int]:
    """Writes to a disk that has a random remainder left, too little for the checkpoint."""
    path, chance = disk / "last.ckpt", random.Random(seed)
    need = good(path, 1, 60_000).stat().st_size
    right = intact = 0
    for step in range(2, 2 + times):
        room = shutil.disk_usage(disk).free
        filler = disk / "filler"
        filler.write_bytes(b"x" * (room - chance.randrange(0, need - 8192)))
        try:
            writing.write(path, payload(step, 60_000), step)
        except LitTransformerError as error:
            right += error.exit_code == 3 and "\n" not in str(error) and str(path) in str(error)
        intact += whole(path, 1) and read(path)["global_step"] == 1 and not _strays(disk)
        filler.unlink()
    return {"full disks": times, "one line, code 3": right, "previous intact, nothing stray": intact}


def _strays(folder: Path) -> int:
    return len([name for name in os.listdir(folder) if name not in ("last.ckpt", "best.ckpt", "filler")])
