"""The pre-parser: YAML as data, bounded in every direction, before anything else looks at it.

YAML is read event by event, so nothing is built that was not counted: no tags (no objects), no duplicate keys, aliases
are copies that count, nesting and size have limits. Scalars follow YAML 1.2: only ``true`` and ``false`` are booleans
(a language called ``no`` stays text), ``1e-3`` is a number.
"""

import math
import re
from pathlib import Path

import yaml

from lit_transformer.errors import EnvironmentFault
from lit_transformer.recipe.errors import one_line, quote
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark, Node, Scalar, Sequence

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 60

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = (".inf", "+.inf", "-.inf", ".nan")
_FORBIDDEN = re.compile("[^\\x09\\x0a\\x0d\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def read_recipe(path: str | Path, name: str | None = None) -> Mapping:
    """Reads a recipe file.

    Args:
        path: The file.
        name: How errors call it; left out: the path.

    Raises:
        RecipeError: Not there, too large, not UTF-8, not YAML, or YAML with tags, duplicate keys or too many nodes.
        EnvironmentFault: Not readable.
    """
    mark = Mark(name or str(path))
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise mark.error("there is no such file; lit-transformer recipes list names the shipped ones") from error
    except IsADirectoryError as error:
        raise mark.error("is a folder, expected a YAML file") from error
    except ValueError as error:
        raise mark.error(one_line(error)) from error
    except OSError as error:
        raise EnvironmentFault(f"{mark.file}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise mark.error(f"is larger than {MAX_BYTES:,} bytes, which no recipe is")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Mark(mark.file, line).error(
            f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8; save the file as UTF-8"
        ) from error
    return read_text(text, mark.file)


def read_text(text: str, name: str) -> Mapping:
    """Reads a recipe from text; ``name`` stands in for the file in errors."""
    node = parse(text, name)
    if node is None or (isinstance(node, Scalar) and node.value is None):
        raise Mark(name).error("is empty, expected a recipe with the keys model, data and trainer")
    if not isinstance(node, Mapping):
        kind = "a list" if isinstance(node, Sequence) else f"{quote(node.value)}"
        raise node.mark.error(f"expected keys and values such as 'model:', got {kind}")
    return node


def read_value(text: str) -> Node:
    """Reads the value of a command-line option: YAML where it is a list, a mapping or a plain value, else text."""
    mark = Mark(COMMAND_LINE)
    if text.lstrip().startswith(("[", "{")):
        node = parse(text, COMMAND_LINE)
        return _unmarked(node) if node is not None else Scalar(mark, text, text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return Scalar(mark, text[1:-1], text[1:-1])
    return Scalar(mark, resolve_scalar(text, mark), text)


def parse(text: str, name: str) -> Node | None:
    """Parses one YAML document into a tree; None where there is none.

    Raises:
        RecipeError: As for ``read_recipe``.
    """
    if len(text) > MAX_BYTES:
        raise Mark(name).error(f"is larger than {MAX_BYTES:,} bytes, which no recipe is")
    if bad := _FORBIDDEN.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise Mark(name, line).error(f"holds the control character U+{ord(bad[0]):04X}; remove it")
    return _Builder(name).build(text)


def resolve_scalar(text: str, mark: Mark, key: str = "") -> None | bool | int | float | str:
    """What an unquoted scalar means."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text) or _HEX.fullmatch(text):
        if len(text) > 40:
            raise mark.error(f"{quote(text, 20)} is too large a number", key)
        number = int(text, 0)
        if not -(2**63) <= number < 2**63:
            raise mark.error(f"{number} does not fit into 64 bits", key)
        return number
    if text.lower() in _NOT_FINITE:
        raise mark.error(f"{quote(text)} is no number that a recipe can use; leave the key out, or write null", key)
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):  # 007 is text, not 7
        value = float(text)
        if math.isinf(value):
            raise mark.error(f"{quote(text, 20)} is too large a number", key)
        return value
    return text


class _Open:
    """A list or mapping that is not closed yet."""

    def __init__(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: tuple[str, Mark] | None = None


class _Builder:
    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes = 0
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.root: Node | None = None
        self.documents = 0

    def build(self, text: str) -> Node | None:
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                self._handle(event)
        except yaml.MarkedYAMLError as error:
            where = error.problem_mark or error.context_mark
            line = where.line + 1 if where else 0
            problem = error.problem or "is not YAML"
            if "'\\t'" in problem or (where and text.splitlines()[where.line : where.line + 1][0:1] and
                                      "\t" in text.splitlines()[where.line][: where.column + 1]):  # fmt: skip
                problem = "a tab indents this line; YAML wants spaces"
            raise Mark(self.name, line).error(f"is not valid YAML: {problem}") from error
        except yaml.YAMLError as error:
            raise Mark(self.name).error(f"is not valid YAML: {one_line(error)}") from error
        return self.root

    def _mark(self, event: yaml.Event) -> Mark:
        return Mark(self.name, event.start_mark.line + 1 if event.start_mark else 0)

    def _path(self) -> str:
        return ".".join(frame.key[0] for frame in self.stack if frame.key)

    def _handle(self, event: yaml.Event) -> None:
        mark = self._mark(event)
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise mark.error("a second document begins ('---'); a recipe is one document")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            frame = self.stack.pop()
            self._place(frame.node, frame.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor or "", mark)
        elif isinstance(event, (yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if event.tag is not None:
                raise mark.error(f"the tag {quote(event.tag)} is refused; a recipe is plain data", self._path())
            self._count(1, mark)
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, mark)
                return
            if len(self.stack) >= MAX_DEPTH:
                raise mark.error(f"is nested more than {MAX_DEPTH} levels deep")
            if self.stack and isinstance(self.stack[-1].node, Mapping) and self.stack[-1].key is None:
                raise mark.error("a key must be plain text", self._path())
            node: Sequence | Mapping = Mapping(mark) if isinstance(event, yaml.MappingStartEvent) else Sequence(mark)
            self.stack.append(_Open(node, event.anchor))

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> None:
        frame = self.stack[-1] if self.stack else None
        if frame and isinstance(frame.node, Mapping) and frame.key is None:
            if event.value == "<<" and event.implicit[0]:
                raise mark.error("merge keys ('<<') are refused; use an overlay", self._path())
            if event.value in frame.node.items:
                first = frame.node.marks[event.value].line
                path = ".".join(filter(None, (self._path(), event.value)))
                raise mark.error(f"is given twice, first on line {first}; remove one", one_line(path, 200))
            frame.key = (event.value, mark)
            return
        plain_style = event.implicit[0]
        value = resolve_scalar(event.value, mark, self._path()) if plain_style else event.value
        self._place(Scalar(mark, value, event.value), event.anchor)

    def _alias(self, name: str, mark: Mark) -> None:
        if name not in self.anchors:
            raise mark.error(f"the alias *{one_line(name, 40)} names no anchor above it", self._path())
        if self.stack and isinstance(self.stack[-1].node, Mapping) and self.stack[-1].key is None:
            raise mark.error("a key must be plain text", self._path())
        node, size = self.anchors[name]
        self._count(size, mark)
        self._place(_copy(node), None)

    def _count(self, nodes: int, mark: Mark) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise mark.error(f"holds more than {MAX_NODES:,} values (aliases count in full)")

    def _place(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (node, _size(node))
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        if isinstance(frame.node, Sequence):
            frame.node.items.append(node)
            return
        assert frame.key is not None  # the parser gives a key before each value
        frame.node.put(frame.key[0], node, frame.key[1])
        frame.key = None


def _size(node: Node) -> int:
    if isinstance(node, Scalar):
        return 1
    children = node.items if isinstance(node, Sequence) else node.items.values()
    return 1 + sum(_size(child) for child in children)


def _copy(node: Node) -> Node:
    if isinstance(node, Scalar):
        return node
    if isinstance(node, Sequence):
        return Sequence(node.mark, [_copy(item) for item in node.items])
    return Mapping(node.mark, {k: _copy(v) for k, v in node.items.items()}, dict(node.marks))


def _unmarked(node: Node) -> Node:
    """The same tree without line numbers, which mean nothing on a command line."""
    mark = Mark(COMMAND_LINE)
    if isinstance(node, Scalar):
        return Scalar(mark, node.value, node.text)
    if isinstance(node, Sequence):
        return Sequence(mark, [_unmarked(item) for item in node.items])
    return Mapping(mark, {k: _unmarked(v) for k, v in node.items.items()}, dict.fromkeys(node.marks, mark))
