"""A recipe as a tree in which every value knows the line that it came from."""

from dataclasses import dataclass, field
from typing import Any

from lit_transformer.recipe.errors import RecipeError

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Mark:
    """Where a value was written.

    Args:
        file: File as the user named it, or ``command line``.
        line: Line, counted from 1; 0 where there is none.
    """

    file: str
    line: int = 0

    def error(self, message: str, key: str = "") -> RecipeError:
        """An error at this place."""
        return RecipeError(message, self.file, self.line, key)


@dataclass
class Scalar:
    """A single value.

    Args:
        mark: Where it stands.
        value: None, a bool, an int, a float or a str.
        text: How it was written.
    """

    mark: Mark
    value: None | bool | int | float | str
    text: str


@dataclass
class Sequence:
    """A list."""

    mark: Mark
    items: "list[Node]" = field(default_factory=list)


@dataclass
class Mapping:
    """Keys and values; ``marks`` says where each key stands."""

    mark: Mark
    items: "dict[str, Node]" = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)

    def put(self, key: str, value: "Node", mark: Mark) -> None:
        """Sets a key."""
        self.items[key] = value
        self.marks[key] = mark


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The tree as plain data."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, value in node.items.items()}


def from_plain(data: Any, mark: Mark, key: str = "", depth: int = 0) -> Node:
    """Plain data as a tree, for data that came from elsewhere (a checkpoint, a notebook).

    Raises:
        RecipeError: Something else than None, bool, int, float, str, list, tuple and dict with text keys.
    """
    if depth > 60:
        raise mark.error("is nested more than 60 levels deep", key)
    if data is None or isinstance(data, (bool, int, float, str)):
        return Scalar(mark, data, str(data))
    if isinstance(data, (list, tuple)):
        return Sequence(mark, [from_plain(item, mark, f"{key}[{i}]", depth + 1) for i, item in enumerate(data)])
    if isinstance(data, dict):
        result = Mapping(mark)
        for name, value in data.items():
            if not isinstance(name, str):
                raise mark.error(f"has the key {name!r}, which is not text", key)
            result.put(name, from_plain(value, mark, f"{key}.{name}".lstrip("."), depth + 1), mark)
        return result
    raise mark.error(f"is a {type(data).__name__}, expected plain data", key)


def locate(tree: Mapping, key: str) -> tuple[Mark, str] | None:
    """Where a key path stands; for one that is not written, where its nearest parent does. None: nowhere."""
    node: Node = tree
    found: Mark | None = None
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node.items:
            break
        found, node = node.marks[part], node.items[part]
    return (found, key) if found else None


def find_suffix(tree: Mapping, suffix: str, prefix: str = "") -> tuple[Mark, str] | None:
    """Where the first key path that ends with ``suffix`` stands, such as ``dims.n_heads``."""
    for name, value in tree.items.items():
        path = f"{prefix}.{name}" if prefix else name
        if path == suffix or path.endswith("." + suffix):
            return tree.marks[name], path
        if isinstance(value, Mapping) and (found := find_suffix(value, suffix, path)):
            return found
    return None
