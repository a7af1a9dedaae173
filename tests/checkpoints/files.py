"""Good checkpoint files, and everything that a file can be instead."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_transformer.checkpoints import write


def payload(step: int, size: int = 4000) -> dict[str, Any]:
    """What a small checkpoint holds; every value is the step's."""
    return {
        "state_dict": {"network.a": torch.full((size,), float(step)), "network.b": torch.full((3, 3), float(step))},
        "global_step": step,
        "run_state": {"step": step, "clock": {"steps": step}},
        "callbacks": {},
    }


def good(path: Path, step: int = 7, size: int = 4000) -> Path:
    """Writes a good checkpoint."""
    write(path, payload(step, size), step)
    return path


def wrong_kinds(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files that are no checkpoint, with what they are."""
    state = payload(7)["state_dict"]

    def file(name: str, data: bytes) -> tuple[str, Path]:
        path = folder / f"{name.replace(' ', '_')}.ckpt"
        path.write_bytes(data)
        return name, path

    def torch_bytes(value: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return buffer.getvalue()

    def zip_bytes(names: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in names.items():
                archive.writestr(name, data)
        return buffer.getvalue()

    whole = good(folder / "whole.ckpt").read_bytes()
    yield file("empty", b"")
    yield file("one byte", b"P")
    yield file("text", b"model:\n  lr: 1e-3\n" * 20)
    yield file("html", b"<!doctype html><html><body>404 Not Found</body></html>")
    yield file("random bytes", np.random.default_rng(0).bytes(5000))
    yield file("zeros", b"\0" * len(whole))
    yield file("pickle", pickle.dumps({"state_dict": {"a": [1.0]}}))
    yield file("legacy torch", torch_bytes(state, _use_new_zipfile_serialization=False))
    yield file("bare state dict", torch_bytes(state))
    yield file("torch of another program", torch_bytes(payload(7)))
    yield file("zip of text", zip_bytes({"readme.txt": b"hello"}))
    yield file("numpy archive", zip_bytes({"a.npy": b"\x93NUMPY"}))
    yield file("gzip", gzip.compress(whole))
    yield file("cut by one byte", whole[:-1])
    yield file("cut in half", whole[: len(whole) // 2])
    yield file("bytes added", whole + b"\0" * 10)
    yield file("first kilobyte lost", whole[1024:])
    yield file("two joined", whole + whole)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    yield file("safetensors", struct.pack("<Q", len(header)) + header + b"\0" * 4)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder / "whole.ckpt", arcname="x")
    yield file("tar", buffer.getvalue())
    (folder / "folder.ckpt").mkdir()
    yield "folder", folder / "folder.ckpt"
    os.mkfifo(folder / "pipe.ckpt")
    yield "pipe", folder / "pipe.ckpt"
    yield "missing", folder / "missing.ckpt"
    (folder / "loop.ckpt").symlink_to(folder / "loop.ckpt")
    yield "link to itself", folder / "loop.ckpt"


def flipped(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """Copies with one bit changed: at random, and one in ten among the last bytes, where the footer is."""
    random = np.random.default_rng(seed)
    for number in range(count):
        at = int(random.integers(len(data)) if number % 10 else len(data) - 1 - random.integers(200))
        changed = bytearray(data)
        changed[at] ^= 1 << int(random.integers(8))
        yield at, bytes(changed)


def truncated(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[int, bytes]]:
    """Copies cut at random places."""
    for at in np.random.default_rng(seed).integers(len(data), size=count):
        yield int(at), data[:at]
