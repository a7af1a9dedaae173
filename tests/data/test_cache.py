"""The cache: made once, whole or not at all, also with several processes and a damaged disk."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from lit_transformer.data.cache import MANIFEST, Cache
from lit_transformer.errors import EnvironmentFault


def put(text: str = "content", log: Path | None = None):  # type: ignore[no-untyped-def]
    def build(folder: Path) -> None:
        if log is not None:
            with log.open("a") as file:
                file.write("x")
            time.sleep(0.3)
        (folder / "file").write_text(text)

    return build


def fail(folder: Path) -> None:
    raise AssertionError("built again")


def test_builds_once_for_a_key(own_cache: Path) -> None:
    cache = Cache()
    first = cache.entry("kind", {"a": 1}, put())
    assert cache.entry("kind", {"a": 1}, fail) == first
    assert first.parent == own_cache
    assert Cache().entry("kind", {"a": 2}, put("other")) != first
    assert (first / "file").read_text() == "content"


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "no manifest"])
def test_rebuilds_what_is_damaged_and_says_so(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    cache = Cache()
    entry = cache.entry("kind", {}, put())
    if damage == "flip":
        (entry / "file").write_text("c0ntent")
    elif damage == "cut":
        (entry / "file").write_text("conte")
    elif damage == "remove":
        (entry / "file").unlink()
    elif damage == "manifest":
        (entry / MANIFEST).write_text("{")
    else:
        (entry / MANIFEST).unlink()
    assert (cache.entry("kind", {}, put()) / "file").read_text() == "content"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"Rebuilding {entry}: ")
    cache.entry("kind", {}, fail)
    assert capsys.readouterr().err == ""


def test_a_failed_build_leaves_nothing(own_cache: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache().entry("kind", {}, broken)
    assert [path for path in own_cache.iterdir() if path.is_dir()] == []


def test_sweeps_what_a_killed_build_left(own_cache: Path) -> None:
    entry = Cache().entry("kind", {}, put())
    stale = own_cache / f".{entry.name}.killed"
    stale.mkdir()
    (entry / "file").unlink()
    Cache().entry("kind", {}, put())
    assert not stale.exists()


def _process(folder: str, log: str) -> None:
    entry = Cache(folder).entry("kind", {}, put(log=Path(log)))
    os._exit(0 if (entry / "file").read_text() == "content" else 1)


def test_processes_wait_for_the_one_that_builds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=_process, args=(str(tmp_path / "c"), str(log))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "x"


def test_without_locks_the_last_build_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    cache = Cache()

    def slow(folder: Path) -> None:
        cache.entry("kind", {}, put())  # another process is faster
        put()(folder)

    entry = cache.entry("kind", {}, slow)
    assert (entry / "file").read_text() == "content"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_one_line(code: int, own_cache: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(EnvironmentFault, match=f"{own_cache}: cannot write the cache: {os.strerror(code)}"):
        Cache().entry("kind", {}, full)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot write the cache"):
        Cache(tmp_path / "file" / "cache").entry("kind", {}, put())
