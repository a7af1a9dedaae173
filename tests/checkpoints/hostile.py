"""Checkpoints of somebody who wants code to run, each with a right footer: the digest proves nothing about intent."""

import contextlib
import copy
import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lit_transformer.checkpoints.footer import FOOTER_BYTES, Footer, new_hash

SENTINEL = "sentinel_of_the_tests"
"""A module that leaves a mark when it is imported, or when a function of it is called."""


def plant(folder: Path) -> Path:
    """Writes the sentinel module into ``folder``, makes it importable, and returns the mark that it leaves."""
    mark = folder / "mark"
    (folder / f"{SENTINEL}.py").write_text(
        f"def fire(*a, **k):\n    open({str(mark)!r}, 'a').write('fired ')\n    return dict\n"
        "class Evil:\n    def __init__(self, *a, **k):\n        fire()\n"
        "    def __setstate__(self, s):\n        fire()\n"
        "fire()\n",
        encoding="utf-8",
    )
    sys.path.insert(0, str(folder))
    return mark


def seal(data: bytes, step: int) -> bytes:
    """The same archive with a footer that is right in every way."""
    if data[-22:-18] == b"PK\x05\x06":
        data = data[:-2] + struct.pack("<H", FOOTER_BYTES)
    digest = new_hash()
    digest.update(data)
    return data + Footer.seal(digest, step, len(data)).to_bytes()


class Call:
    """Calls a function by name when it is unpickled."""

    def __init__(self, name: str, *arguments: Any) -> None:
        self.name, self.arguments = name, arguments


def hostile(folder: Path, good: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Hostile files, with what each tries; all differ from the good content in one place."""
    mark = folder / "mark"
    shell = f"touch {mark}"
    python = f"open({str(mark)!r},'w')"

    def file(name: str, data: bytes) -> tuple[str, Path]:
        path = folder / f"{name.replace(' ', '_').replace('/', '_')}.ckpt"
        path.write_bytes(seal(data, good["global_step"]))
        return name, path

    def gadget(name: str, call: Call, where: str = "callbacks") -> tuple[str, Path]:
        return file(name, with_pickle(good | {where: call}))

    def content(name: str, change: Callable[[dict[str, Any]], None]) -> tuple[str, Path]:
        changed = copy.deepcopy(good)
        change(changed)
        buffer = io.BytesIO()
        torch.save(changed, buffer)
        return file(name, buffer.getvalue())

    # code in the pickle
    yield gadget("os.system", Call("os.system", shell))
    yield gadget("posix.system", Call("posix.system", shell), "state_dict")
    yield gadget("subprocess", Call("subprocess.Popen", ["touch", str(mark)]), "optimizer_states")
    yield gadget("eval", Call("builtins.eval", python), "hyper_parameters")
    yield gadget("exec", Call("builtins.exec", python), "vocabulary")
    yield gadget("import", Call("builtins.__import__", SENTINEL), "tokenizer")
    yield gadget("import_module", Call("importlib.import_module", SENTINEL), "run_state")
    yield gadget("sentinel function", Call(f"{SENTINEL}.fire"), "loops")
    yield gadget("sentinel class", Call(f"{SENTINEL}.Evil"), "ema")
    yield gadget("runpy", Call("runpy.run_path", str(folder / f"{SENTINEL}.py")))
    yield gadget("getattr chain", Call("builtins.getattr", Call("builtins.__import__", "os"), "system"))
    yield gadget("torch.load", Call("torch.load", str(folder / "plain.pickle")))
    yield gadget("torch.hub", Call("torch.hub.load", str(folder), "x"))
    yield gadget("load from bytes", Call("torch.storage._load_from_bytes", pickle.dumps(Call("os.system", shell), 2)))
    yield gadget("pickle.loads", Call("pickle.loads", b"cos\nsystem\n(S'x'\ntR."))
    yield gadget("numpy load", Call("numpy.load", str(folder / "plain.pickle"), None, True))
    yield gadget("webbrowser", Call("webbrowser.open", "http://127.0.0.1:9/"))
    yield gadget("ctypes", Call("ctypes.CDLL", "libc.so.6"))
    yield gadget("lightning helper", Call("lightning.fabric.utilities.cloud_io._load", "http://127.0.0.1:9/x"))
    yield gadget("our own build", Call("lit_transformer.recipe.building.build", "x", f"{SENTINEL}.Evil"))
    yield file("stack global", with_pickle(good, raw=b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."))
    yield file("inst", with_pickle(good, raw=b"(S'true'\nios\nsystem\n."))
    yield file("obj", with_pickle(good, raw=b"(cos\nsystem\nS'true'\no."))
    yield file("extension", with_pickle(good, raw=b"\x80\x02\x82\x01."))
    yield file("persistent id", with_pickle(good, raw=b"\x80\x02cos\nsystem\nQ."))
    yield file(
        "build of a dict",
        with_pickle(good, raw=b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00acos\nsystem\nsb."),
    )
    yield file("endless", with_pickle(good, raw=b"\x80\x02" + b"]q\x00" + b"h\x00h\x00\x86" * 30 + b"."))
    # other containers
    yield file("bare pickle", pickle.dumps(("os", "system"), 2))
    yield file("legacy torch", _legacy(good))
    yield file(
        "torchscript",
        _zip({"archive/code/__torch__.py": b"import os", "archive/data.pkl": b"N.", "archive/constants.pkl": b"N."}),
    )
    yield file("climbing name", _zip({"../../evil.py": b"x", "archive/data.pkl": b"N."}))
    yield file(
        "zip bomb", _zip({"archive/data.pkl": b"N.", "archive/data/0": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED)
    )
    # classes named by the content
    evil = {"class_path": f"{SENTINEL}.Evil", "init_args": {}}

    def network(config: Any) -> Callable[[dict[str, Any]], None]:
        return lambda c: c["hyper_parameters"]["init_args"].__setitem__("network", config)

    def part(name: str, config: Any) -> Callable[[dict[str, Any]], None]:
        return lambda c: c["hyper_parameters"]["init_args"]["network"]["init_args"].__setitem__(name, config)

    yield content("network class", network(evil))
    yield content("network by name", network(f"{SENTINEL}.Evil"))
    yield content("network os.system", network({"class_path": "os.system", "init_args": {"command": shell}}))
    yield content("part class", part("position", evil))
    yield content("parts in a list", part("layer", [evil, evil]))
    yield content(
        "deep part", part("layer", {"class_path": "lit_transformer.blocks.Layer", "init_args": {"norm": evil}})
    )
    yield content(
        "through our module", part("position", {"class_path": f"lit_transformer.blocks.position.{SENTINEL}.Evil"})
    )
    yield content(
        "torch through our module", part("position", {"class_path": "lit_transformer.blocks.position.torch.hub.load"})
    )
    yield content("a tool of ours", part("position", {"class_path": "lit_transformer.cli.main.main"}))
    yield content("relative class", part("position", {"class_path": f"..{SENTINEL}.Evil"}))
    yield content("class with spaces", part("position", {"class_path": f" {SENTINEL}.Evil"}))
    yield content(
        "lambda callback",
        network(
            {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": f"{SENTINEL}.fire"}}
        ),
    )
    yield content(
        "lightning instantiator",
        lambda c: c["hyper_parameters"].update(_instantiator=f"{SENTINEL}.fire", _class_path=f"{SENTINEL}.Evil"),
    )
    yield content("task class", lambda c: c["hyper_parameters"].update(class_path=f"{SENTINEL}.Evil"))
    yield content(
        "hparams name and type", lambda c: c.update(hparams_type=f"{SENTINEL}.Evil", hparams_name=f"{SENTINEL}")
    )
    # sizes and values
    yield content("huge layers", lambda c: _dims(c).update(n_layers=10**12))
    yield content("huge width", lambda c: _dims(c).update(d_model=10**9, n_heads=1))
    yield content("huge vocabulary", lambda c: c["vocabulary"].update(size=10**15))
    yield content("vocabulary of text", lambda c: c["vocabulary"].update(size="__import__('os')"))
    yield content("vocabulary with more", lambda c: c["vocabulary"].update(evil=1))
    yield content(
        "claimed elements",
        lambda c: c["state_dict"].update({"network.embedding.weight": torch.zeros(1).expand(10**9, 64)}),
    )
    yield content(
        "sparse weight", lambda c: c["state_dict"].update({"network.embedding.weight": torch.eye(3).to_sparse()})
    )
    yield content(
        "meta weight", lambda c: c["state_dict"].update({"network.embedding.weight": torch.empty(10**9, device="meta")})
    )
    yield content("text for weights", lambda c: c["state_dict"].update({"network.embedding.weight": "x"}))
    yield content("tokenizer of rubbish", lambda c: c.update(tokenizer='{"version": "1.0", "model": {"type": "Evil"}}'))
    yield content(
        "run state of rubbish", lambda c: c.update(run_state={"step": c["global_step"], "clock": {"evil": 1}})
    )
    yield content(
        "callbacks of rubbish", lambda c: c.update(callbacks={f"{SENTINEL}.Evil": {"class_path": f"{SENTINEL}.Evil"}})
    )


def with_pickle(good: dict[str, Any], raw: bytes | None = None) -> bytes:
    """A torch archive whose ``data.pkl`` is pickled with ``Call`` objects turned into calls, or replaced by ``raw``."""
    buffer = io.BytesIO()
    torch.save({k: v for k, v in good.items() if not isinstance(v, Call)}, buffer)
    if raw is None:
        plain = {k: _without_tensors(v) for k, v in good.items()}
        out = io.BytesIO()
        _Pickler(out, 2).dump(plain)
        raw = out.getvalue()
    with zipfile.ZipFile(buffer) as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    return _zip({name: raw if name.endswith("data.pkl") else data for name, data in names.items()})


def fires(path: Path, mark: Path) -> bool:
    """Whether the file does its harm when it is opened without care: what proves that it is dangerous."""
    mark.unlink(missing_ok=True)
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    return mark.exists()


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes a ``Call`` as the opcodes that call the function, importing nothing here."""

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(value, Call):
            super().save(value, save_persistent_id)
            return
        module, _, name = value.name.rpartition(".")
        self.write(b"c" + module.encode() + b"\n" + name.encode() + b"\n(")
        for argument in value.arguments:
            self.save(argument)
        self.write(b"tR")


def _without_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_tensors(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(v) for v in value]
    return 0 if isinstance(value, torch.Tensor) else value


def _zip(names: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _legacy(good: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(good["state_dict"], buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _dims(content: dict[str, Any]) -> dict[str, Any]:
    dims: dict[str, Any] = content["hyper_parameters"]["init_args"]["network"]["init_args"]["dims"]
    return dims.get("init_args", dims)
