"""A checkpoint is written whole or not at all."""

import errno
import os
import resource
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from lit_transformer.checkpoints import read, read_footer, sweep, verify, write, writing
from lit_transformer.errors import EnvironmentFault, UserError
from tests.checkpoints import kills
from tests.checkpoints.files import good, payload


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = good(tmp_path / "deep" / "last.ckpt", step=12)
    assert read(path)["global_step"] == 12
    assert torch.equal(read(path)["state_dict"]["network.a"], torch.full((4000,), 12.0))
    assert os.listdir(path.parent) == ["last.ckpt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_footer_says_step_and_digest_and_the_file_stays_an_archive(tmp_path: Path) -> None:
    path = good(tmp_path / "last.ckpt", step=12)
    footer = verify(path)
    assert footer == read_footer(path) and footer.step == 12
    assert footer.sha256.encode() in path.read_bytes()[-100:]
    with zipfile.ZipFile(path) as archive:
        assert b"lit-transformer checkpoint" in archive.comment
    assert torch.load(path, weights_only=True, mmap=True)["global_step"] == 12


def test_big_tensors_are_not_held_twice(tmp_path: Path) -> None:
    size = 200_000_000
    big = payload(1) | {"state_dict": {"a": torch.ones(size // 4)}}

    def work() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        write(tmp_path / "last.ckpt", big, 1)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        return 0 if grown < size // 5 else 9

    assert kills.wait(kills.forked(work)) == 0


def test_random_kills(tmp_path: Path) -> None:
    result = kills.kill_writers(tmp_path, 12)
    assert result["torn or lost"] == result["stray"] == 0


def test_kill_before_every_system_call(tmp_path: Path) -> None:
    result = kills.kill_at_every_call(tmp_path)
    assert result["kills"] > 6 and result["torn or lost"] == result["stray"] == 0


def test_kill_at_the_first_byte_with_the_temporary_folder_elsewhere(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm" if os.path.isdir("/dev/shm") else None)
    result = kills.kill_at_first_byte(tmp_path, 5)
    assert result["torn or lost"] == result["stray"] == 0


def test_kills_are_noticed_where_files_are_written_in_place(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The kill tests fail when the guard is taken out."""

    def in_place(path: Path, content: object, step: int) -> None:
        with open(path, "wb") as file:
            torch.save(content, file)

    monkeypatch.setattr("tests.checkpoints.files.write", in_place)
    monkeypatch.setattr(kills, "read", lambda path: torch.load(path, weights_only=True))
    with pytest.raises((AssertionError, RuntimeError, EOFError)):
        result = kills.kill_at_first_byte(tmp_path, 5, size=4_000_000)
        assert result["torn or lost"] == 0


def test_full_disk(tmp_path: Path) -> None:
    with kills.small_disk(tmp_path / "disk", 2000) as disk:
        if disk is None:
            pytest.skip("cannot mount a file system here")
        result = kills.fill_disk(disk, 6)
    assert result["one line, code 3"] == result["previous intact, nothing stray"] == 6


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_failing_call_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch, call: str, reason: int
) -> None:  # type: ignore[no-untyped-def]
    path = good(tmp_path / "last.ckpt", 1)
    original = getattr(os, call)

    def fail(*args: object, **options: object) -> object:
        if call == "open" and isinstance(args[0], Path) and ".partial" not in args[0].name:
            return original(*args, **options)
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(EnvironmentFault) as caught:
        write(path, payload(2), 2)
    monkeypatch.undo()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and os.strerror(reason) in str(caught.value)
    assert "intact" in str(caught.value) and caught.value.exit_code == 3
    assert read(path)["global_step"] == 1 and os.listdir(tmp_path) == ["last.ckpt"]


def test_what_could_not_be_read_safely_is_not_written(tmp_path: Path) -> None:
    path = good(tmp_path / "last.ckpt", 1)
    with pytest.raises(UserError, match="threading.Lock|_thread|PosixPath|pathlib"):
        write(path, payload(2) | {"oops": Path("x")}, 2)
    assert read(path)["global_step"] == 1 and os.listdir(tmp_path) == ["last.ckpt"]


def test_an_object_that_cannot_be_pickled_leaves_nothing(tmp_path: Path) -> None:
    path = good(tmp_path / "last.ckpt", 1)
    with pytest.raises(TypeError):
        write(path, payload(2) | {"oops": threading.Lock()}, 2)
    assert read(path)["global_step"] == 1 and os.listdir(tmp_path) == ["last.ckpt"]


def test_sweeping_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    good(tmp_path / "last.ckpt")
    dead = tmp_path / ".last.ckpt.0123abcd.partial"
    dead.write_bytes(b"half")
    other = tmp_path / "notes.partial"
    other.write_text("mine")
    assert sweep(tmp_path) == [dead]
    assert not dead.exists() and other.exists()


def test_sweeping_spares_a_writer_at_work(tmp_path: Path) -> None:
    with writing._replacing(tmp_path / "best.ckpt") as (partial, _):
        good(tmp_path / "last.ckpt")
        assert partial.exists()
    assert (tmp_path / "best.ckpt").exists()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
