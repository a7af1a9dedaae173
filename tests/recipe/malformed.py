"""Recipes with one mistake each, made from the shipped ones: at every key, class and value, in the YAML, in overlays."""

import copy
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from lit_transformer.recipe import shipped_recipes

Path_ = tuple[Any, ...]

FREE = ("data_files", "dict_kwargs")
"""Keys whose inner keys are the user's own."""

CLASSES = {
    "model": "Position", "network": "AdamW", "layer": "RoPE", "attention": "SwiGLU", "feed_forward": "Attention",
    "norm": "RoPE", "qk_norm": "SwiGLU", "position": "RMSNorm", "mask": "RoPE", "kernel": "Causal", "optimizer": "RoPE",
    "schedule": "AdamW", "data": "Layer", "corpus": "ByteLevelBPE", "tokenizer": "RoPE", "grid": "AdamW",
    "embedding": "RoPE", "pooling": "AdamW", "layout": "AdamW", "batches": "AdamW", "head": "RoPE", "residual": "RoPE",
}  # fmt: skip
"""A class of another family for each slot."""

OUT_OF_RANGE: dict[str, list[Any]] = {
    "model.network.dims.d_model": [0, -16, 10**13, 16.5, "wide", True, None, [16], {"size": 16}],
    "model.network.dims.n_layers": [0, -1, "two", 1.5, None],
    "model.network.dims.n_heads": [0, -4, 7, 11, "4 heads", 2.5],
    "model.network.dims.n_kv_heads": [0, -1, 3, "x", 1.5],
    "model.network.dims.head_dim": [0, -1, "x", 7.5],
    "model.network.dims.d_ff": [0, -1, "x"],
    "model.network.dims.max_len": [0, -1, "long"],
    "model.optimizer.lr": [-1.0, float("nan"), float("-inf"), float("inf"), "fast", True, [1e-3], None],
    "model.optimizer.weight_decay": [-0.1, "x", [0.1], float("nan")],
    "model.optimizer.betas": [[2.0, 0.9], [0.9], [0.9, 0.9, 0.9], 0.9, ["a", "b"], [-1, 0.9]],
    "model.optimizer.lrr": [1e-3],
    "model.schedule.warmup": [-1, "x", True, 1.5, None],
    "model.max_steps": [10],
    "model.vocabulary": [{"size": 10}],
    "data.block_size": [0, -1, 1.5, "x", True, None, [32]],
    "data.batch_size": [0, -1, 1.5, "x", True, None],
    "data.max_len": [0, -1, 1.5, "x", True],
    "data.seed": [-1, 1.5, "x"],
    "data.num_workers": [-1, 1.5, "x"],
    "data.cache_dir": [3, ["a"], True],
    "data.tokenizer.vocab_size": [0, -1, 3, 1.5, "x", None],
    "data.tokenizer.special_tokens": ["x", 3, [3], [None], {"a": "b"}],
    "data.tokenizer.pattern": ["(", 3],
    "data.corpus.validation_fraction": [0.0, 1.0, -0.5, 7, "x"],
    "data.corpus.sample_by": ["word", 3, True],
    "data.corpus.data_dir": ["/nowhere/at/all", 3],
    "data.corpus.lines": [0, -1, "x", 1.5],
    "trainer.max_steps": [0, -1, 1.5, "x", True, None, [10], {"a": 1}],
    "trainer.validate_every": [0, -1, 1.5, "x", True],
    "trainer.gradient_clip_val": [-1.0, "x", True, [1.0]],
    "trainer.accumulate_grad_batches": [0, -1, 1.5, "x", None],
    "trainer.limit_val_batches": [-1, 1.5, "x", float("nan")],
    "trainer.limit_train_batches": [-1, 1.5, "x"],
    "trainer.log_every_n_steps": [-1, "x", 1.5],
    "trainer.precision": ["bf17", "bf16-mixd", 17, True, "16 bit"],
    "trainer.accelerator": ["gpux", 3, [], "cuda:0"],
    "trainer.strategy": ["dpp", "DDPStrategi", 3, {"class_path": "AdamW"}, [1]],
    "trainer.devices": [99999, 0, -5, "x", [99999], True, "1,x"],
    "trainer.num_nodes": [0, -1, "x"],
    "trainer.callbacks": ["Foo", 3, [3], [{}], [{"class_path": "EarlyStopping"}], ["EarlyStoping"], "os.system",
                          [{"class_path": "EarlyStopping", "monitr": "val/loss"}], [{"class_path": "EMA", "decay": 2.0}],
                          [{"class_path": "EMA", "decay": "x"}], [{"class_path": "NonFinite", "max_skipped": -1}],
                          [{"class_path": "Checkpointing", "every_n_steps": 0}],
                          [{"class_path": "Checkpointing", "mode": "best"}], [None], [["EMA"]]],
    "trainer.logger": ["TensorBoard", 3, ["Foo"], {"class_path": "CSVLogger", "nam": "x"}],
    "trainer.profiler": ["fast", 3, {"class_path": "RoPE"}],
    "trainer.plugins": ["Foo", 3, [{"class_path": "RoPE"}]],
    "trainer.benchmark": ["x", 3],
    "trainer.detect_anomaly": ["yes", 1, [True]],
    "trainer.deterministic": ["x", 3, [True]],
    "trainer.max_time": ["soon", 3, [1], {"weeks": "x"}],
    "trainer.overfit_batches": [-1, 1.5, "x"],
    "trainer.gradient_clip_algorithm": ["x", 3],
    "trainer.max_epochs": [3],
    "trainer.val_check_interval": [3],
    "trainer.default_root_dir": ["x"],
    "seed_everything": [-1, 2**33, 1.5, "lucky", [1], {"a": 1}],
    "resume": [True], "init_from": ["x"], "allow": [["os"]], "ckpt_path": ["x"], "output": ["x"], "checkpoint": ["x"],
    "optimizer": ["AdamW"], "lr_scheduler": ["Cosine"], "network": ["DecoderOnly"], "extra": [1], "": [1],
    "model.lr": [1e-3], "model.network.n_heads": [4], "model.network.dropout": [0.1], "model.network.dims.dropout": [0.1],
    "trainer.batch_size": [8], "data.max_steps": [8], "model.block_size": [8], "max_steps": [8], "dims": [{"d_model": 4}],
}  # fmt: skip
"""Values that no recipe may hold, by key path; keys that a recipe's classes do not take are wrong in any case."""

REQUIRED = ("model", "data", "trainer.max_steps", "model.network", "model.class_path", "data.class_path", "data.corpus")

OPTIONS = [
    ["--trainer.max_step", "3"], ["--trainer.max_steps", "many"], ["--trainer.max_steps=-3"], ["--trainer.max_steps"],
    ["--model.network.dims.n_heads", "7"], ["--model.network.dims.d_modell=3"], ["--model.optimizer", "AdamWW"],
    ["--model.optimizer.lr", "quick"], ["--data.batch_size=-1"], ["--data.batch_size", "[1"], ["--data", "x"],
    ["--trainer.callbacks+", "3"], ["--trainer.callbacks+", "{class_path: Foo}"], ["--trainer.callbacks", "[*a]"],
    ["--trainer.callbacks", "{class_path: EMA, decay: 7}"], ["--nonsense"], ["--nonsense", "3"], ["word"], ["-x"],
    ["--config"], ["--config", "nowhere.yaml"], ["--config", "."], ["--config", "https://example.org/r.yaml"],
    ["--config", "overlays/tinny"], ["--allow", "os"], ["--allow", "no such"], ["--allow", "missing_package"],
    ["--resume=a", "--init_from", "b"], ["--init_from", "nowhere.ckpt"], ["--init_from", "http://x/y.ckpt"],
    ["--resume=http://example.org/x.ckpt"], ["--resume=nowhere.ckpt"], ["--print_config=3"], ["--trainer.", "3"],
    ["--model..network", "x"], ["--.", "3"], ["--seed_everything", "x"], ["--trainer.precision", "9"], ["--=3"],
    ["--output"], ["--trainer.strategy", "{class_path: DDPStrategy, nonsense: 1}"], ["--trainer", "3"],
]  # fmt: skip


_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Malformed:
    """One mistake.

    Args:
        kind: What sort of mistake.
        name: What was done, and where.
        files: Content by file name; the recipe is ``bad.yaml``.
        argv: What follows ``fit``.
    """

    kind: str
    name: str
    files: dict[str, bytes]
    argv: tuple[str, ...] = field(default=("--config", "bad.yaml"))


def malformed(count: int | None = None, seed: int = 0, recipes: Collection[str] | None = None) -> list[Malformed]:
    """A sample with the same share of every kind as far as there are enough of it; ``None``: all.

    Args:
        count: How many.
        seed: Decides which, and what they look like.
        recipes: Names of those that are changed; left out: all that ship.
    """
    everything = list(_all(random.Random(seed), recipes))
    if count is None:
        return everything
    kinds: dict[str, list[Malformed]] = {}
    for case in everything:
        kinds.setdefault(case.kind, []).append(case)
    for cases in kinds.values():
        random.Random(seed).shuffle(cases)
    chosen: list[Malformed] = []
    while len(chosen) < count and any(kinds.values()):
        for cases in kinds.values():
            if cases and len(chosen) < count:
                chosen.append(cases.pop())
    return chosen


def _all(chance: random.Random, recipes: Collection[str] | None) -> Iterator[Malformed]:
    for recipe in shipped_recipes():
        if recipe.is_overlay or (recipes is not None and recipe.name not in recipes):
            continue
        text = recipe.path.read_text(encoding="utf-8")
        data = yaml.safe_load(text)
        for kind, generate in TREES.items():
            for name, changed in generate(data, chance):
                yield Malformed(kind, f"{recipe.name}: {name}", {"bad.yaml": _dump(changed)})
        for name, content in _broken_text(text, chance):
            yield Malformed("broken YAML", f"{recipe.name}: {name}", {"bad.yaml": content})
        for name, content in _overlays(data, chance):
            files = {"bad.yaml": text.encode(), "over.yaml": content}
            argv = ("--config", "bad.yaml", "--config", "over.yaml")
            yield Malformed("overlay", f"{recipe.name}: {name}", files, argv)
        for option in OPTIONS:
            argv = ("--config", "bad.yaml", *option)
            yield Malformed("option", f"{recipe.name}: {' '.join(option)}", {"bad.yaml": text.encode()}, argv)
    for name, content in _not_recipes():
        yield Malformed("no recipe", name, {"bad.yaml": content})


def _dump(data: Any) -> bytes:
    return yaml.dump(data, Dumper=_DUMPER, sort_keys=False).encode()


def _walk(data: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key), value
        if key not in FREE:
            yield from _walk(value, (*path, key))


def _changed(data: Any, path: Path_, change: Callable[[Any, Any], None]) -> Any:
    """A copy in which ``change(parent, key)`` was made."""
    result = copy.deepcopy(data)
    parent = result
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return result


def _with(data: Any, path: Path_, value: Any) -> Any:
    return _changed(data, path, lambda parent, key: parent.__setitem__(key, value))


def _misspelt(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word))
    return chance.choice([
        word[:at] + word[at] + word[at:], word[:at] + "x" + word[at:], word + "s", word[:at] + "q" + word[at + 1 :],
        word.swapcase(), word.replace("_", "-") if "_" in word else word + "_", " " + word + "!",
    ])  # fmt: skip


def _keys(data: Any, chance: random.Random) -> Iterator[tuple[str, Any]]:
    for path, _ in _walk(data):
        if isinstance(path[-1], str):
            new = _misspelt(path[-1], chance)

            def rename(parent: Any, key: str, new: str = new) -> None:
                items = [(new if k == key else k, v) for k, v in parent.items()]
                parent.clear()
                parent.update(items)

            if path[-1] != "class_path":
                yield f"key {_dotted(path)} -> {new}", _changed(data, path, rename)


def _classes(data: Any, chance: random.Random) -> Iterator[tuple[str, Any]]:
    for path, value in _walk(data):
        slot = next((key for key in reversed(path) if isinstance(key, str) and key != "class_path"), "")
        if not isinstance(value, str) or not (path[-1] == "class_path" or slot in CLASSES):
            continue
        for wrong in (_misspelt(value, chance), CLASSES.get(slot, "RoPE"), f"my_package.{value}", 3, [[value]], ""):
            yield f"class {_dotted(path)} -> {wrong!r}", _with(data, path, wrong)


def _types(data: Any, chance: random.Random) -> Iterator[tuple[str, Any]]:
    for path, value in _walk(data):
        if path[-1] == "class_path" or (len(path) > 1 and path[-2] in FREE):
            continue
        wrong: list[Any] = [{"class_path": "RoPE"}, {"a": 1}]
        if isinstance(value, bool):
            wrong += ["maybe", 3, [True]]
        elif isinstance(value, int | float):
            wrong += ["many", [value, value], True, ""]
        elif isinstance(value, dict):
            wrong += ["some words", 3, [1], True]
        elif isinstance(value, str):
            wrong = [3, True, {"a": 1}, 1.5]
        elif isinstance(value, list):
            wrong = [{"a": 1}, 3, True] if path[-1] != "callbacks" else [3, "words"]
        for each in wrong:
            if path[-1] == "seed_everything" and each is True:
                continue  # Lightning's word for a random seed
            yield f"{_dotted(path)} -> {each!r}", _with(data, path, each)


def _ranges(data: Any, chance: random.Random) -> Iterator[tuple[str, Any]]:
    for dotted, values in OUT_OF_RANGE.items():
        path = tuple(dotted.split("."))
        for value in values:
            try:
                yield f"{dotted} = {value!r}", _with(_opened(data, path), path, value)
            except (KeyError, TypeError):
                continue


def _opened(data: Any, path: Path_) -> Any:
    """A copy in which every parent of the path takes keys: 'position: RoPE' becomes 'position: {class_path: RoPE}'."""
    result = parent = copy.deepcopy(data)
    for key in path[:-1]:
        if isinstance(parent.get(key), str):
            parent[key] = {"class_path": parent[key]}
        parent = parent[key]
    return result


def _missing(data: Any, chance: random.Random) -> Iterator[tuple[str, Any]]:
    for dotted in REQUIRED:
        path = tuple(dotted.split("."))
        yield f"without {dotted}", _changed(data, path, lambda parent, key: parent.pop(key))
        yield f"nothing in {dotted}", _with(data, path, None)
        yield f"empty {dotted}", _with(data, path, {} if dotted != "trainer.max_steps" else [])


TREES: dict[str, Callable[[Any, random.Random], Iterator[tuple[str, Any]]]] = {
    "misspelt key": _keys,
    "wrong class": _classes,
    "wrong type": _types,
    "out of range": _ranges,
    "missing part": _missing,
}


def _dotted(path: Path_) -> str:
    return ".".join(map(str, path))


def _broken_text(text: str, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    lines = text.splitlines()
    texts = _block_texts(lines)
    plain = [
        i
        for i, line in enumerate(lines)
        if line.strip() and not line.lstrip().startswith(("#", "-")) and i not in texts
    ]
    inner = [i for i in plain if lines[i].startswith(" ")]
    valued = [i for i in plain if ": " in lines[i].split("#")[0]]

    def put(at: int, line: str, replaced: int = 1) -> bytes:
        return ("\n".join([*lines[:at], line, *lines[at + replaced :]]) + "\n").encode()

    for at in plain:
        line = lines[at]
        key = line.split(":")[0]
        yield f"line {at + 1} twice", put(at + 1, f"{key}: 1", 0) if ": " in line else put(at, f"{key}: 1\n{line}")
        yield f"line {at + 1} without its colon", put(at, line.replace(":", "", 1))
        yield f"line {at + 1} with an open quote", put(at, f'{key}: "open')
        yield f"line {at + 1} with an open bracket", put(at, f"{key}: [1, 2")
        yield f"line {at + 1} with an open brace", put(at, f"{key}: {{a: 1")
        yield f"line {at + 1} with a tag", put(at, f"{key}: !!python/object/apply:os.system [true]")
        yield f"line {at + 1} with an alias", put(at, f"{key}: *nowhere")
        yield f"line {at + 1} with a reserved sign", put(at, f"{key}: @value")
        yield f"line {at + 1} with a control character", put(at, f'{key}: "a\x07"')
        yield f"line {at + 1} with a byte that is no UTF-8", put(at, f"{key}: ").rstrip(b"\n") + b" \xff\xfe\n"
        yield f"line {at + 1} with a huge number", put(at, f"{key}: 1{'0' * 400}")
    for at in inner:
        yield f"line {at + 1} indented by a tab", put(at, "\t" + lines[at].lstrip())
        yield f"a merge key after line {at + 1}", put(at, f"{' ' * _indent(lines[at])}<<: {{a: 1}}", 0)
    for at in valued:
        yield f"line {at + 1} indented more", put(at, f"{lines[at]}\n{' ' * (_indent(lines[at]) + 3)}more: 1")
        yield f"cut in line {at + 1}", "\n".join([*lines[:at], lines[at].split(":")[0] + ": {"]).encode()
    for at in set(range(plain[0] + 1, len(lines), 4)) - texts:
        yield f"a second document after line {at}", put(at, "---", 0)
        yield f"a question mark after line {at}", put(at, "? [a, b]\n: c", 0)


def _block_texts(lines: list[str]) -> set[int]:
    """Numbers of the lines that are the text of a block ('template: |-'), where anything may stand."""
    found: set[int] = set()
    start: int | None = None
    for number, line in enumerate(lines):
        if start is not None and (not line.strip() or _indent(line) > start):
            found.add(number)
            continue
        start = _indent(line) if line.rstrip().endswith(("|", "|-", "|+", ">", ">-")) else None
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _overlays(data: Any, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    for path, value in _walk(data):
        if any(isinstance(key, int) or key in FREE for key in path) or path[-1] == "class_path":
            continue
        wrong = _misspelt(path[-1], chance)
        yield f"key {_dotted(path)} -> {wrong}", _dump(_nested((*path[:-1], wrong), 1))
        if isinstance(value, dict):
            yield f"text over {_dotted(path)}", _dump(_nested(path, "some words"))
            yield f"a list over {_dotted(path)}", _dump(_nested(path, [1, 2]))
            yield f"an unknown key in {_dotted(path)}", f"{_dotted(path)}.nonsense: 1\n".encode()
        elif isinstance(value, int | float):
            yield f"a word over {_dotted(path)}", f"{_dotted(path)}: word\n".encode()
            yield f"a key below {_dotted(path)}", f"{_dotted(path)}.more: 1\n".encode()
    yield "empty", b""
    yield "a list", b"- a\n- b\n"
    yield "not YAML", b"model: [\n"
    yield "not UTF-8", "trainer: {max_steps: 3} # \xe9".encode("latin-1")
    yield "twice the same", b"trainer.max_steps: 3\ntrainer: {max_steps: 4}\n"
    yield "nothing before a dot", b".max_steps: 3\n"
    yield "appending to a number", b"trainer.max_steps+: 3\n"
    yield "appending a number", b"trainer.callbacks+: 3\n"
    yield "no key", b"? \n: 3\n"


def _nested(path: Path_, value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _not_recipes() -> Iterator[tuple[str, bytes]]:
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    yield from {
        "empty": b"",
        "a comment": b"# nothing\n",
        "a word": b"hello\n",
        "a number": b"3\n",
        "a list": b"- model\n- data\n",
        "a null": b"null\n",
        "spaces": b"   \n \n",
        "a tab": b"\t\n",
        "zeros": b"\0" * 100,
        "UTF-16": "model: x\n".encode("utf-16"),
        "UTF-32": "model: x\n".encode("utf-32"),
        "Latin-1": "# \xe9t\xe9\nmodel: x\n".encode("latin-1"),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "a zip file": b"PK\x03\x04" + bytes(100),
        "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.",
        "JSON cut off": b'{"model": {"class_path": "LanguageModeling",',
        "TOML": b"[model]\nclass_path = 'LanguageModeling'\n",
        "Python": b"import os\nos.system('true')\n",
        "HTML": b"<!doctype html><html><body>404</body></html>\n",
        "too large": b"# " + b"x" * 1_100_000 + b"\nmodel: x\n",
        "too many values": b"a: [" + b"1," * 30_000 + b"1]\n",
        "too deep": b"a: " + b"[" * 200 + b"]" * 200 + b"\n",
        "too deep in keys": b"".join(b" " * i + b"a:\n" for i in range(200)),
        "an alias bomb": bomb.encode(),
        "an anchor of itself": b"a: &a [*a]\n",
        "a tag at the top": b"!!python/object:os.system {}\n",
        "a YAML directive": b"%YAML 9.9\n---\nmodel: x\n",
        "two documents": b"model: x\n---\nmodel: y\n",
        "a list as key": b"? [a]\n: b\n",
        "an endless line": b"model: " + b"x" * 900_000 + b"\n",
        "an endless key": b"x" * 2000 + b": 1\n",
        "colours": b'model: "\\e[31mred"\n',
        "line breaks in a name": b'model: "a\\nb\\rc"\n',
    }.items()
