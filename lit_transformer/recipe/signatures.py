"""What a constructor takes, and what its types say, for the checks before jsonargparse and for error lines."""

import collections.abc
import dataclasses
import inspect
import sys
import types
from enum import Enum
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin

from jsonargparse import _stubs_resolver
from jsonargparse._parameter_resolvers import get_signature_parameters

if _stubs_resolver.stubs_resolver is None:
    # Left to itself, the first look at a stub starts another Python, only to ask for the path that is known here.
    _stubs_resolver.stubs_resolver = _stubs_resolver.StubsResolver(  # type: ignore[assignment]
        search_context=_stubs_resolver.tc.get_search_context(search_path=[Path(each) for each in sys.path if each])
    )

EMPTY = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor.

    Args:
        name: Its name.
        annotation: Its type; ``Any`` where there is none.
        default: What is used where it is left out; ``EMPTY`` where it may not be.
        doc: Its line of the docstring.
    """

    name: str
    annotation: Any
    default: Any
    doc: str = ""

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is EMPTY


@lru_cache(maxsize=1024)
def parameters(cls: type, skip: int = 0) -> dict[str, Parameter]:
    """The parameters that a recipe may give, those passed on by ``**kwargs`` among them.

    Args:
        cls: The class.
        skip: Number of leading ones that its owner passes by position.
    """
    found = {}
    for i, param in enumerate(get_signature_parameters(cls, None, logger=False)):
        if i < skip or "VAR_" in str(param.kind) or param.name.startswith("_"):
            continue
        annotation = Any if param.annotation is EMPTY or isinstance(param.annotation, str) else param.annotation
        found[param.name] = Parameter(param.name, annotation, param.default, param.doc or "")
    return found


def takes_anything(cls: type) -> bool:
    """Whether the constructor has a ``**kwargs``, so that ``dict_kwargs`` makes sense."""
    try:
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    except (TypeError, ValueError):
        return False


def unwrapped(annotation: Any) -> Any:
    """The type behind aliases, ``Annotated`` and ``NewType``."""
    while True:
        if type(annotation).__name__ == "TypeAliasType":  # of typing from Python 3.12 on, of typing_extensions before
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def members(annotation: Any) -> list[Any]:
    """The members of a union, nested ones opened up; the type itself where it is none."""
    annotation = unwrapped(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for arg in get_args(annotation) for member in members(arg)]
    return [annotation]


def is_anything(annotation: Any) -> bool:
    """Whether the type says nothing."""
    return annotation in (Any, object, EMPTY) or isinstance(annotation, TypeVar)


def class_slot(annotation: Any) -> tuple[type, int] | None:
    """What class a slot takes, and how many positional arguments its owner passes; None where it takes no class.

    ``Position`` is (Position, 0) and ``Callable[[Dims], Position]`` is (Position, 1).
    """
    annotation = unwrapped(annotation)
    if get_origin(annotation) is collections.abc.Callable:
        if len(get_args(annotation)) != 2:
            return None
        arguments, result = get_args(annotation)
        slot = class_slot(result)
        return (slot[0], len(arguments) if isinstance(arguments, list) else 0) if slot else None
    base = get_origin(annotation) or annotation
    if not inspect.isclass(base) or base.__module__ in ("builtins", "collections.abc", "typing", "types"):
        return None
    if issubclass(base, (Enum, PathLike, bool, int, float, str, list, dict, tuple, set)):
        return None
    return base, 0


def is_sizes(cls: type) -> bool:
    """Whether a class is a plain dataclass, which takes its fields directly and no subclass."""
    return dataclasses.is_dataclass(cls) and cls.__bases__ == (object,)


def describe(annotation: Any) -> str:
    """A type in words."""
    options = members(annotation)
    words: list[str] = []
    choices: list[str] = []
    for option in options:
        slot = class_slot(option)
        if slot and slot[0].__module__.split(".")[0] in ("torch", "datetime") and len(options) > 1:
            continue  # a Tensor beside a number is for programs
        if get_origin(option) is Literal:
            choices += [repr(a) if isinstance(a, str) else str(a) for a in get_args(option)]
        elif inspect.isclass(option) and issubclass(option, Enum):
            choices += [m.name for m in option]
        elif option is not type(None):
            words.append(_word(option))
    if choices:
        words.insert(0, ("one of " if len(choices) > 1 else "") + ", ".join(dict.fromkeys(choices)))
    if type(None) in options:
        words.append("null")
    return " or ".join(dict.fromkeys(words)) or "a value"


_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _word(option: Any) -> str:
    if option in _WORDS:
        return _WORDS[option]
    if slot := class_slot(option):
        return f"the name of a {slot[0].__name__}" if not is_sizes(slot[0]) else f"the fields of {slot[0].__name__}"
    origin, args = get_origin(option) or option, get_args(option)
    if inspect.isclass(origin) and issubclass(origin, PathLike):
        return "a path"
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Mapping):
        return "keys and values" + (f" ({describe(args[1])})" if len(args) == 2 and not is_anything(args[1]) else "")
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Iterable):
        inner = [a for a in args if a is not Ellipsis]
        return "a list" + (f" of {describe(inner[0])}" if inner and not is_anything(inner[0]) else "")
    return getattr(option, "__name__", str(option))


def docstring_line(cls: type) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(cls) or "").strip().split("\n")[0]
