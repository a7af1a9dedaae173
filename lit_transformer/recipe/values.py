"""Plain values of a recipe against the types of arguments: numbers, text, choices; and which types are containers."""

import collections.abc
import inspect
from enum import Enum
from os import PathLike
from typing import Any, Literal, get_args, get_origin

from lit_transformer.recipe.signatures import class_slot, unwrapped
from lit_transformer.recipe.tree import COMMAND_LINE, Node, Scalar

NOTHING = object()
"""What a faulty value resolves to; the fault is in ``Resolver.errors``."""


def plain_value(node: Node, option: Any, typed: bool) -> Any:
    """The node as a plain value of this type, or NOTHING.

    Args:
        node: A node.
        option: A type.
        typed: Also take the text of an option, as everything on a command line is text; in a file, text that looks
            like a number is quoted.
    """
    option = unwrapped(option)
    origin = get_origin(option) or option
    if not isinstance(node, Scalar) or (typed and node.mark.file != COMMAND_LINE):
        return NOTHING
    value: Any = node.text if typed and node.value is not None else node.value
    if origin is Literal:
        same = [a for a in get_args(option) if a == value and isinstance(a, bool) == isinstance(value, bool)]
        return same[0] if same else NOTHING
    if not inspect.isclass(origin):
        return NOTHING
    if issubclass(origin, Enum):
        return value if isinstance(value, str) and value in origin.__members__ else NOTHING
    if origin is bool:
        return value if isinstance(value, bool) else NOTHING
    if origin is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else NOTHING
    if origin is float:
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else NOTHING
    if origin is str or issubclass(origin, PathLike):
        return value if isinstance(value, str) else NOTHING
    return NOTHING


def int_or_none(value: float) -> int | None:
    """The whole number that a float is equal to."""
    return int(value) if value == value and abs(value) < 2**63 and value == int(value) else None


def is_list(option: Any) -> bool:
    """Whether the type takes a list."""
    origin = get_origin(unwrapped(option)) or unwrapped(option)
    if not inspect.isclass(origin) or issubclass(origin, (str, bytes)) or is_mapping(option):
        return False
    return issubclass(origin, collections.abc.Iterable) and class_slot(option) is None


def is_mapping(option: Any) -> bool:
    """Whether the type takes keys and values that are not the arguments of a class."""
    origin = get_origin(unwrapped(option)) or unwrapped(option)
    return inspect.isclass(origin) and issubclass(origin, collections.abc.Mapping)
