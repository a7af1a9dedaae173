"""Checks a recipe against the constructors it names, and gives every value its full form.

The result is plain data in which every class is said by its full path, ready for jsonargparse, which checks once more
and builds. What is wrong is found here first, because here every value still knows the line it was written on.
"""

import collections.abc
import inspect
from typing import Any, Literal, get_args, get_origin

from lit_transformer.recipe.allow import ImportList, current_list
from lit_transformer.recipe.catalog import Catalog, is_abstract
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
from lit_transformer.recipe.tree import Mapping, Mark, Node, Scalar, Sequence, plain
from lit_transformer.recipe.values import NOTHING, int_or_none, is_list, is_mapping, plain_value


class Resolver:
    """Walks a tree along types and collects what is wrong.

    Args:
        imports: What may be named; left out: the list of the process.
    """

    def __init__(self, imports: ImportList | None = None) -> None:
        self.catalog = Catalog(imports or current_list())
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
            slots = [
                slot for slot in slots if self.catalog.known(slot[0])
            ]  # a Tensor beside a number is not for recipes
        if slots and isinstance(node, Scalar) and isinstance(node.value, str) and self.catalog.find(node.value, slots):
            return self._class(node, slots, key, mark, default)
        for typed in (False, True):
            for option in options:
                if not class_slot(option) and (found := plain_value(node, option, typed)) is not NOTHING:
                    return found
        if slots and isinstance(node, Mapping):
            return self._class(node, slots, key, mark, default)
        if isinstance(node, Sequence) and (lists := [o for o in options if is_list(o)]):
            return self._list(node, lists[0], key, mark)
        if isinstance(node, Mapping) and (maps := [o for o in options if is_mapping(o)]):
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
            names += list(self.catalog.known(base))
        close = nearest(node.text, names) if isinstance(node.value, str) else []
        if isinstance(node.value, float) and node.value == int_or_none(node.value) and int in members(annotation):
            return f", got {node.text}; write {int(node.value)}"
        return f", got {quote(node.value)}" + (f"; did you mean {' or '.join(close)}?" if close else "")

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
                names = sorted({n for base in bases for n in self.catalog.known(base)})
                listed = f"; known: {', '.join(names)}" if 0 < len(names) <= 16 else ""
                wanted = " or ".join(f"the name of a {base.__name__}" for base in bases)
                return self._fault(mark, f"class_path is missing, expected {wanted}{listed}", key)
        else:
            if not isinstance(name, Scalar) or not isinstance(name.value, str):
                return self._fault(name_mark, f"class_path: expected the name of a class, got {_short(name)}", key)
            found = self.catalog.find(name.value, slots)
            if found is None:
                return self._fault(name_mark, self.catalog.why_not(name.value, bases), key)
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
            if not is_abstract(base) and self.catalog.allows(base):
                return base, skip
        return None

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


def _slot_of(param: Parameter) -> tuple[type, int] | None:
    """The slot that a parameter's default class stands in."""
    slots = [slot for option in members(param.annotation) if (slot := class_slot(option))]
    return next((slot for slot in slots if issubclass(param.default, slot[0])), None)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _short(node: Node) -> str:
    return one_line(quote(plain(node)) if isinstance(node, Scalar) else type(node).__name__.lower(), 60)


def _source(name: str) -> str:
    return {"max_steps": "trainer.max_steps", "vocabulary": "the data", "classes": "the data"}.get(name, "elsewhere")
