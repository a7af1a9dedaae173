"""Checkpoints that are folders: the old one or the new one after a kill or on a full disk, and nothing stray."""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_transformer.checkpoints import find_newest, read, sweep, verify, write
from lit_transformer.checkpoints.folders import keep, remove
from lit_transformer.checkpoints.manifest import MANIFEST, Manifest, described
from lit_transformer.checkpoints.sharded import write_sharded
from lit_transformer.errors import EnvironmentFault, UserError
from tests.checkpoints.files import good, payload
from tests.checkpoints.hostile import hostile, plant
from tests.checkpoints.kills import forked, small_disk, wait, whole

CALLS = ("mkdir", "rename", "replace", "symlink", "fsync", "unlink", "rmdir", "close")


def test_killed_before_every_call(tmp_path: Path) -> None:
    """Of those that change the folder: the last checkpoint is whole, the next save leaves nothing stray."""
    path = tmp_path / "last.ckpt"
    write_sharded(path, payload(1), 1)
    kills = 0
    for number in range(1, 200):
        step = verify(path).step

        def work(number: int = number, step: int = step) -> None:
            left = [number]

            def deadly(original: Any) -> Any:
                def call(*words: Any, **options: Any) -> Any:
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return original(*words, **options)

                return call

            for name in CALLS:
                setattr(os, name, deadly(getattr(os, name)))
            write_sharded(path, payload(step + 1), step + 1)

        if wait(forked(work)) == 0:
            break
        kills += 1
        assert whole(path, step), number
    sweep(tmp_path)
    assert kills > 15 and sorted(each.name for each in tmp_path.iterdir()) == sorted([path.name, os.readlink(path)])


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1500) as disk:
        if disk is None:
            pytest.skip("a small file system cannot be mounted")
        path = disk / "last.ckpt"
        need = write_sharded(path, payload(1, 60_000), 1).length
        for room in (0, need // 3, need // 2, need - 20_000):
            (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - room))
            with pytest.raises(EnvironmentFault, match=r"No space left.*is intact; free some space"):
                write_sharded(path, payload(2, 60_000), 2)
            assert read(path)["global_step"] == 1 and len(list(disk.iterdir())) == 3
            (disk / "filler").unlink()


def test_files_and_folders_take_each_others_place(tmp_path: Path) -> None:
    last, kept = tmp_path / "last.ckpt", tmp_path / "step-00000002.ckpt"
    good(last, 1)
    write_sharded(last, payload(2), 2)
    keep(last, kept)
    write_sharded(last, payload(3), 3)
    assert (verify(kept).step, verify(last).step) == (2, 3) and len(list(tmp_path.iterdir())) == 4
    remove(kept)
    assert len(list(tmp_path.iterdir())) == 2
    copy = tmp_path / "copy"  # whose links were followed, as scp does
    shutil.copytree(tmp_path, copy)
    assert not (copy / "last.ckpt").is_symlink() and verify(copy / "last.ckpt").step == 3
    write_sharded(copy / "last.ckpt", payload(4), 4)
    assert verify(copy / "last.ckpt").step == 4 and len(list(copy.iterdir())) == 2
    write(last, payload(5), 5)
    sweep(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "last.ckpt"] and verify(last).step == 5
    found = find_newest(copy)
    assert found is not None and found.step == 4


def test_strangers_folders_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside the parts, or their index, wants code to run; the manifest is right."""
    monkeypatch.setattr("sys.path", list(sys.path))
    mark = plant(tmp_path)
    home = tmp_path / "last"
    write_sharded(home, payload(7), 7, linked=False)
    for name, file in itertools.islice(hostile(tmp_path, payload(7)), 32):
        before = {each: (home / each).read_bytes() for each in ("meta.pt", ".metadata", MANIFEST)}
        for place in ("meta.pt", ".metadata"):
            (home / place).write_bytes(file.read_bytes())
            names = [each.name for each in home.iterdir() if each.name != MANIFEST]
            manifest = Manifest(7, {each: described(home / each) for each in names})
            (home / MANIFEST).write_bytes(manifest.to_bytes())
            assert verify(home).step == 7
            with pytest.raises(UserError):
                read(home)
            assert not mark.exists(), (name, place)
            for each, data in before.items():
                (home / each).write_bytes(data)
    assert read(home)["global_step"] == 7
