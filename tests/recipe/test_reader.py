"""The pre-parser: what it refuses, and how it says where."""

import time

import pytest

from lit_transformer.errors import LitTransformerError
from lit_transformer.recipe import RecipeError, read_recipe, read_text
from lit_transformer.recipe.reader import MAX_BYTES, read_value, resolve_scalar
from lit_transformer.recipe.tree import Mark, plain

MALFORMED = {
    "tab": ("model:\n\tnetwork: x\n", ":2:", "tab"),
    "unclosed list": ("model: [1, 2\n", ":2:", "not valid YAML"),
    "unclosed mapping": ("model: {a: 1\n", ":2:", "not valid YAML"),
    "unclosed quote": ("model: 'abc\n", "", "not valid YAML"),
    "no space after colon in a block": ("model:\n  a:1\n  b: 2\n", ":3:", "not valid YAML"),
    "bad indentation": ("model:\n    a: 1\n  b: 2\n", ":3:", "not valid YAML"),
    "duplicate key": ("model: 1\ndata: 2\nmodel: 3\n", ":3: model:", "given twice, first on line 1"),
    "nested duplicate key": ("model:\n  dims:\n    d_model: 1\n    d_model: 2\n", ":4: model.dims.d_model:", "line 3"),
    "duplicate in flow": ("model: {a: 1, a: 2}\n", ":1: model.a:", "given twice"),
    "python tag": ("model: !!python/object/apply:os.system ['true']\n", ":1: model:", "tag"),
    "local tag": ("model: !thing 1\n", ":1: model:", "tag"),
    "int tag": ("model: !!int '1'\n", ":1:", "tag"),
    "binary tag": ("model: !!binary aGVsbG8=\n", ":1:", "tag"),
    "tagged mapping": ("model: !!map {a: 1}\n", ":1:", "tag"),
    "merge key": ("a: &x {b: 1}\nc:\n  <<: *x\n", ":3: c:", "merge keys"),
    "unknown alias": ("model: *nowhere\n", ":1: model:", "names no anchor"),
    "two documents": ("model: 1\n---\nmodel: 2\n", ":2:", "second document"),
    "a list": ("- model\n- data\n", ":1:", "got a list"),
    "a word": ("model\n", ":1:", "got 'model'"),
    "a number": ("42\n", ":1:", "got 42"),
    "empty": ("", "r.yaml:", "is empty"),
    "only comments": ("# nothing here\n\n", "r.yaml:", "is empty"),
    "null": ("null\n", "r.yaml:", "is empty"),
    "NUL": ("model: a\0b\n", ":1:", "U+0000"),
    "escape": ("model: 1\ndata: \x1b[31m\n", ":2:", "U+001B"),
    "list as key": ("? [a, b]\n: 1\n", ":1:", "key must be plain text"),
    "alias as key": ("a: &x b\n*x : 1\n", "", ""),
    "huge int": ("model: 99999999999999999999\n", ":1: model:", "64 bits"),
    "thousands of digits": (f"model: {'9' * 5000}\n", ":1: model:", "too large"),
    "huge float": ("model: 1e999\n", ":1: model:", "too large"),
    "deep flow": ("model: " + "[" * 200 + "]" * 200, ":1:", "levels deep"),
    "very deep flow": ("model: " + "[" * 100_000, "", ""),
    "deep block": ("\n".join("  " * i + "a:" for i in range(100)), ":", "levels deep"),
    "many values": ("model: [" + "1," * 30_000 + "]\n", ":1:", "more than"),
    "too large": ("# " + "x" * MAX_BYTES, "r.yaml:", "larger than"),
    "directive": ("%TAG ! tag:x\n", "", ""),
    "stray bracket": ("model: ]\n", ":1:", "not valid YAML"),
    "percent": ("model: %x\n", ":1:", "not valid YAML"),
    "at sign": ("model: @x\n", ":1:", "not valid YAML"),
    "backtick": ("model: `x`\n", ":1:", "not valid YAML"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_text_is_refused_in_one_line(name):
    text, where, what = MALFORMED[name]
    start = time.perf_counter()
    with pytest.raises(RecipeError) as caught:
        read_text(text, "r.yaml")
    assert time.perf_counter() - start < 3
    message = str(caught.value)
    assert "\n" not in message and message.startswith("r.yaml") and where in message and what in message
    assert caught.value.exit_code == 2


def bombs():
    for depth, width in [(5, 10), (8, 9), (10, 10), (20, 3), (30, 2), (60, 2), (4, 100), (3, 1000)]:
        lines = ["a0: &a0 [x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth + 1)]
        yield f"lists {depth} x {width}", "\n".join(lines)
        lines = ["a0: &a0 {k: x}"]
        for i in range(1, depth + 1):
            pairs = ", ".join(f"k{j}: *a{i - 1}" for j in range(width))
            lines.append(f"a{i}: &a{i} {{{pairs}}}")
        yield f"mappings {depth} x {width}", "\n".join(lines)
    yield "itself in a list", "a: &a [*a]"
    yield "itself in a mapping", "a: &a {b: *a}"


@pytest.mark.parametrize("bomb", [text for _, text in bombs()], ids=[name for name, _ in bombs()])
def test_bombs_are_bounded(bomb):
    start = time.perf_counter()
    with pytest.raises(RecipeError):
        read_text(bomb, "r.yaml")
    assert time.perf_counter() - start < 1.5


def test_not_utf8_names_line_and_byte(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"model: 1\nname: caf\xe9\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:2: byte 18 \(0xe9\) is not UTF-8"):
        read_recipe(path)


@pytest.mark.parametrize("make", ["missing", "folder", "utf16", "below a file"])
def test_files_that_are_no_recipes(tmp_path, make):
    path = tmp_path / "r.yaml"
    if make == "folder":
        path.mkdir()
    elif make == "utf16":
        path.write_text("model: 1\n", encoding="utf-16")
    elif make == "below a file":
        path.write_text("x")
        path = path / "y.yaml"
    with pytest.raises(LitTransformerError) as caught:
        read_recipe(path)
    assert caught.value.exit_code == 2


def test_anchors_are_copies():
    tree = read_text("a: &x {b: [1, 2]}\nc: *x\n", "r.yaml")
    assert plain(tree) == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}
    assert tree.items["a"] is not tree.items["c"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1e3", 1e3), (".5", 0.5), ("3.", 3.0), ("-2", -2), ("+7", 7), ("1_000", 1000), ("0x10", 16),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"),
        ("010", "010"), ("1.2.3", "1.2.3"), ("e5", "e5"), ("-", "-"), (".", "."), ("16-mixed", "16-mixed"),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(text, value):
    result = resolve_scalar(text, Mark("r.yaml"))
    assert result == value and type(result) is type(value)


def test_values_of_options():
    assert plain(read_value("[1, a]")) == [1, "a"]
    assert plain(read_value("{a: {b: 1}}")) == {"a": {"b": 1}}
    assert plain(read_value("a: b")) == "a: b"
    assert plain(read_value("'12'")) == "12"
    assert plain(read_value("1e-3")) == 1e-3


def test_lines_are_kept():
    tree = read_text("# a comment\nmodel:\n  dims:\n    d_model: 3\n", "r.yaml")
    dims = tree.items["model"].items["dims"]
    assert tree.marks["model"].line == 2 and dims.marks["d_model"].line == 4
