"""Checks a recipe against the constructors it names, and gives every value its full form.

The result is plain data in which every class is said by its full path, ready for jsonargparse, which checks once more
and builds. What is wrong is found here first, because here every value still knows the line it was written on.
"""

import collections.abc
import inspect
from enum import Enum
from os import PathLike
from typing import Any, Literal, get_args, get_origin

from lit_transformer.recipe.allow import ImportList, current_list
from lit_transformer.recipe.errors import RecipeError, one_line, quote
from lit_transformer.recipe.signatures import (
    EMPTY,
    Parameter,
    class_slot,
    describe,
    is_anything,
    is_sizes,
    members,
    parameters,
    takes_anything,
    unwrapped,
)
from lit_transformer.recipe.suggest import hint, nearest
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark, Node, Scalar, Sequence, plain

NOTHING = object()
"""What a faulty value resolves to; the fault is in ``Resolver.errors``."""


class Resolver:
    """Walks a tree along types and collects what is wrong.

    Args:
        imports: What may be named; left out: the list of the process.
    """

    def __init__(self, imports: ImportList | None = None) -> None:
        self.imports = imports or current_list()
        self.errors: list[RecipeError] = []
        self.parts: dict[str, type] = {}
        """The class at each key path, for errors of constructors."""

    def check(self) -> None:
        """Raises the first error, with the others in its ``others``.

        Raises:
            RecipeError: Anything was wrong.
        """
        if self.errors:
            first, *others = self.errors
            first.others = others
            raise first

    def arguments(
        self,
        node: Mapping,
        params: dict[str, Parameter],
        key: str,
        mark: Mark,
        given: collections.abc.Collection[str] = (),
        hints: dict[str, str] | None = None,
        supplied: collections.abc.Collection[str] = (),
    ) -> dict[str, Any]:
        """The arguments of one constructor.

        Args:
            node: Keys and values.
            params: What it takes.
            key: Key path of the constructor.
            mark: Where it is named, for what is missing.
            given: Names that come from elsewhere and may not be given here.
            hints: What to say about names that users of other tools try.
            supplied: Names that may be left out whatever the constructor says.
        """
        result: dict[str, Any] = {}
        for name, value in node.items.items():
            here, place = _join(key, name), node.marks[name]
            if name in given:
                self._fault(place, f"is filled in from {_source(name)}; remove it", here)
            elif name not in params:
                self._unknown(name, params, here, place, hints or {})
            else:
                result[name] = self.value(value, params[name].annotation, here, place, params[name].default)
        for name, param in params.items():
            if param.required and name not in node.items and name not in given and name not in supplied:
                self._fault(mark, f"is missing, expected {describe(param.annotation)}", _join(key, name))
            elif name not in node.items and inspect.isclass(param.default) and (slot := _slot_of(param)):
                # A default part is said in full, so that a resolved recipe holds its arguments too.
                result[name] = self.build_arguments(param.default, slot[1], Mapping(mark), _join(key, name), mark)
        return result

    def value(self, node: Node, annotation: Any, key: str, mark: Mark, default: Any = EMPTY) -> Any:
        """One value, by its type."""
        options = members(annotation)
        if any(is_anything(option) for option in options):
            return self._anything(node, key, mark)
        if isinstance(node, Scalar) and node.value is None:
            if type(None) in options:
                return None
            return self._fault(mark, f"is empty, expected {describe(annotation)}", key)
        # Plain values first: 'ddp' is text unless it is the name of a class.
        slots = [slot for option in options if (slot := class_slot(option))]
        if any(not class_slot(option) and option is not type(None) for option in options):
            slots = [slot for slot in slots if self.known(slot[0])]  # a Tensor beside a number is not for recipes
        if slots and isinstance(node, Scalar) and isinstance(node.value, str) and self._find(node.value, slots):
            return self._class(node, slots, key, mark, default)
        for typed in (False, True):
            for option in options:
                if not class_slot(option) and (found := _leaf(node, option, typed)) is not NOTHING:
                    return found
        if slots and isinstance(node, Mapping):
            return self._class(node, slots, key, mark, default)
        if isinstance(node, Sequence) and (lists := [o for o in options if _is_list(o)]):
            return self._list(node, lists[0], key, mark)
        if isinstance(node, Mapping) and (maps := [o for o in options if _is_mapping(o)]):
            return self._dict(node, maps[0], key, mark)
        is_word = isinstance(node, Scalar) and isinstance(node.value, str) and str not in options
        if slots and is_word and not any(get_origin(option) is Literal for option in options):
            return self._class(node, slots, key, mark, default)
        if not slots and any(collections.abc.Callable in (unwrapped(o), get_origin(o)) for o in options):
            return self._fault(mark, "takes a function, which a recipe cannot name; use a class", key)
        return self._fault(mark, f"expected {describe(annotation)}{self._got(node, annotation, slots)}", key)

    def _list(self, node: Sequence, option: Any, key: str, mark: Mark) -> Any:
        args = [a for a in get_args(unwrapped(option)) if a is not Ellipsis]
        fixed = (get_origin(unwrapped(option)) is tuple and Ellipsis not in get_args(unwrapped(option))) and args
        if fixed and len(args) != len(node.items):
            return self._fault(mark, f"holds {len(node.items)} values, expected {len(args)}", key)
        return [
            self.value(item, args[i] if fixed else args[0] if args else Any, f"{key}[{i}]", item.mark)
            for i, item in enumerate(node.items)
        ]

    def _dict(self, node: Mapping, option: Any, key: str, mark: Mark) -> Any:
        args = get_args(unwrapped(option))
        item = args[1] if len(args) == 2 else Any
        return {name: self.value(value, item, _join(key, name), node.marks[name]) for name, value in node.items.items()}

    def _anything(self, node: Node, key: str, mark: Mark) -> Any:
        """Plain data for a slot without a type: never a class."""
        if isinstance(node, Mapping):
            if "class_path" in node.items:
                return self._fault(node.marks["class_path"], "takes plain data here, not a class", key)
            return {k: self._anything(v, _join(key, k), node.marks[k]) for k, v in node.items.items()}
        if isinstance(node, Sequence):
            return [self._anything(v, f"{key}[{i}]", v.mark) for i, v in enumerate(node.items)]
        return node.value

    def _got(self, node: Node, annotation: Any, slots: list[tuple[type, int]]) -> str:
        if isinstance(node, Sequence):
            return f", got a list of {len(node.items)}"
        if isinstance(node, Mapping):
            return f", got keys and values ({', '.join(map(str, list(node.items)[:4]))})"
        names = [a for o in members(annotation) if get_origin(o) is Literal for a in get_args(o) if isinstance(a, str)]
        for base, _ in slots:
            names += list(self.known(base))
        close = nearest(node.text, names) if isinstance(node.value, str) else []
        if isinstance(node.value, float) and node.value == int_or_none(node.value) and int in members(annotation):
            return f", got {node.text}; write {int(node.value)}"
        return f", got {quote(node.value)}" + (f"; did you mean {' or '.join(close)}?" if close else "")

    # -- classes ------------------------------------------------------------------------------------------------------

    def known(self, base: type) -> dict[str, list[type]]:
        """The classes that may stand in a slot of this base and are known by now, by short name."""
        found: dict[str, list[type]] = {}
        for cls in subclasses(base):
            path = f"{cls.__module__}.{cls.__qualname__}"
            if not inspect.isabstract(cls) and not cls.__name__.startswith("_") and self.imports.allows(path):
                found.setdefault(cls.__name__, []).append(cls)
        return found

    @staticmethod
    def _preferred(classes: list[type]) -> list[type]:
        """Where a name means several classes, the package's own comes before a library's."""
        own = [cls for cls in classes if cls.__module__.startswith("lit_transformer.")]
        return own or classes

    def _find(self, name: str, slots: list[tuple[type, int]]) -> tuple[type, int] | None:
        """The class of that short name or allowed path, if there is exactly one."""
        for base, skip in slots:
            if "." not in name:
                found = self._preferred(self.known(base).get(name, []))
                if len(found) == 1:
                    return found[0], skip
            elif self.imports.allows(name):
                cls = _imported(name)
                fits = inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
                # Where it is defined must be allowed too, not only the name it is called by.
                if fits and self.imports.allows(f"{cls.__module__}.{cls.__qualname__}"):
                    return cls, skip
        return None

    def _class(self, node: Node, slots: list[tuple[type, int]], key: str, mark: Mark, default: Any) -> Any:
        bases = [base for base, _ in slots]
        rest = Mapping(mark)
        name: Node | None = node
        name_mark = mark
        if isinstance(node, Mapping):
            name = node.items.get("class_path")
            name_mark = node.marks.get("class_path", mark)
            for k, v in node.items.items():
                if k != "class_path":
                    rest.put(k, v, node.marks[k])
        if name is None:
            found = self._implied(slots, default)
            if found is None:
                names = sorted({n for base in bases for n in self.known(base)})
                listed = f"; known: {', '.join(names)}" if 0 < len(names) <= 16 else ""
                return self._fault(mark, f"class_path is missing, expected {_names(bases)}{listed}", key)
        else:
            if not isinstance(name, Scalar) or not isinstance(name.value, str):
                return self._fault(name_mark, f"class_path: expected the name of a class, got {_short(name)}", key)
            found = self._find(name.value, slots)
            if found is None:
                return self._unknown_class(name.value, bases, key, name_mark)
        cls, skip = found
        self.parts[key] = cls
        return self.build_arguments(cls, skip, rest, key, name_mark)

    def build_arguments(
        self, cls: type, skip: int, rest: Mapping, key: str, mark: Mark, given: collections.abc.Collection[str] = ()
    ) -> dict[str, Any]:
        """The full form of a class and its arguments."""
        params = parameters(cls, skip)
        extra: Any = None
        if "dict_kwargs" in rest.items and "dict_kwargs" not in params:
            extra_node = rest.items.pop("dict_kwargs")
            if not takes_anything(cls):
                self._fault(rest.marks["dict_kwargs"], f"{cls.__name__} takes no further arguments", key)
            else:
                extra = self._anything(extra_node, _join(key, "dict_kwargs"), rest.marks["dict_kwargs"])
        hints = getattr(cls, "RECIPE_HINTS", None)
        arguments = self.arguments(rest, params, key, mark, given, hints, self.supplied(cls))
        if is_sizes(cls):
            return arguments
        result: dict[str, Any] = {"class_path": f"{cls.__module__}.{cls.__qualname__}"}
        if arguments:
            result["init_args"] = arguments
        if extra:
            result["dict_kwargs"] = extra
        return result

    def supplied(self, cls: type) -> collections.abc.Collection[str]:
        """Names of arguments that somebody fills in later where a recipe leaves them out."""
        return ()

    def _implied(self, slots: list[tuple[type, int]], default: Any) -> tuple[type, int] | None:
        """The class that arguments without a class_path belong to: the default's, else the slot's own."""
        for base, skip in slots:
            if inspect.isclass(default) and issubclass(default, base):
                return default, skip
            if default is not EMPTY and isinstance(default, base):
                return type(default), skip
        for base, skip in slots:
            if not inspect.isabstract(base) and self.imports.allows(f"{base.__module__}.{base.__qualname__}"):
                return base, skip
        return None

    # -- errors -------------------------------------------------------------------------------------------------------

    def _fault(self, mark: Mark, message: str, key: str) -> Any:
        self.errors.append(mark.error(message, one_line(key, 200)))
        return NOTHING

    def _unknown(self, name: str, params: dict[str, Parameter], key: str, mark: Mark, hints: dict[str, str]) -> None:
        if name in hints:
            self._fault(mark, f"unknown key; {hints[name]}", key)
            return
        candidates = list(params)
        for param in params.values():  # n_heads for dims.n_heads
            for option in members(param.annotation):
                slot = class_slot(option)
                if slot and is_sizes(slot[0]):
                    candidates += [f"{param.name}.{inner}" for inner in parameters(slot[0])]
        self._fault(mark, f"unknown key{hint(name, candidates)}", key)

    def _unknown_class(self, name: str, bases: list[type], key: str, mark: Mark) -> Any:
        shown, family = quote(name), " or ".join(base.__name__ for base in bases)
        by_name: dict[str, list[type]] = {}
        for base in bases:
            for short, classes in self.known(base).items():
                by_name.setdefault(short, []).extend(classes)
        if len(by_name.get(name, [])) > 1:
            paths = ", ".join(f"{c.__module__}.{c.__qualname__}" for c in by_name[name])
            return self._fault(mark, f"{shown} means several classes; give the full path: {paths}", key)
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            if not self.imports.allows(name):
                package = name.split(".")[0]
                return self._fault(
                    mark,
                    f"{shown} may not be named by a recipe; if {quote(package)} is your own package, "
                    f"run with --allow {one_line(package, 40)}",
                    key,
                )
            cls = _imported(name)
            if inspect.isclass(cls):
                state = "abstract" if inspect.isabstract(cls) and issubclass(cls, tuple(bases)) else f"no {family}"
                return self._fault(mark, f"{shown} is {state}{hint(name, by_name, 'known')}", key)
            name = name.rpartition(".")[2]
        if any(cls.__name__ == name for base in bases for cls in subclasses(base)):
            return self._fault(mark, f"{shown} may not be named by a recipe{hint(name, by_name, 'known')}", key)
        return self._fault(mark, f"unknown {family} {shown}{hint(name, by_name, 'known')}", key)


def _imported(path: str) -> Any:
    """The object of an allowed path, None where there is none. Only called once the list allows the path."""
    import importlib

    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _leaf(node: Node, option: Any, typed: bool) -> Any:
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


def _slot_of(param: Parameter) -> tuple[type, int] | None:
    """The slot that a parameter's default class stands in."""
    slots = [slot for option in members(param.annotation) if (slot := class_slot(option))]
    return next((slot for slot in slots if issubclass(param.default, slot[0])), None)


def subclasses(base: type) -> list[type]:
    """The class and everything derived from it that is imported by now."""
    queue: list[type] = [base]
    seen: dict[type, None] = {base: None}
    while queue:
        children: list[type] = type.__subclasses__(queue.pop())
        for child in children:
            if child not in seen:
                seen[child] = None
                queue.append(child)
    return list(seen)


def int_or_none(value: float) -> int | None:
    """The whole number that a float is equal to."""
    return int(value) if value == value and abs(value) < 2**63 and value == int(value) else None


def _is_list(option: Any) -> bool:
    origin = get_origin(unwrapped(option)) or unwrapped(option)
    if not inspect.isclass(origin) or issubclass(origin, (str, bytes)) or _is_mapping(option):
        return False
    return issubclass(origin, collections.abc.Iterable) and class_slot(option) is None


def _is_mapping(option: Any) -> bool:
    origin = get_origin(unwrapped(option)) or unwrapped(option)
    return inspect.isclass(origin) and issubclass(origin, collections.abc.Mapping)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _names(bases: list[type]) -> str:
    return " or ".join(f"the name of a {base.__name__}" for base in bases)


def _short(node: Node) -> str:
    return one_line(quote(plain(node)) if isinstance(node, Scalar) else type(node).__name__.lower(), 60)


def _source(name: str) -> str:
    return {"max_steps": "trainer.max_steps", "vocabulary": "the data"}.get(name, "elsewhere")
