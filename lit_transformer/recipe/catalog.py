"""The classes that a recipe may name: found by short name or path, and said in words where a name is none of them."""

import importlib
import inspect
import sys
from typing import Any

from lit_transformer.recipe.allow import ImportList
from lit_transformer.recipe.errors import one_line, quote
from lit_transformer.recipe.suggest import hint


class Catalog:
    """The classes on the closed list, by the slot that they fit.

    Args:
        imports: What may be named.
    """

    def __init__(self, imports: ImportList) -> None:
        self.imports = imports

    def known(self, base: type) -> dict[str, list[type]]:
        """The classes that may stand in a slot of this base and are imported by now, by short name."""
        found: dict[str, list[type]] = {}
        for cls in subclasses(base):
            if (
                not is_abstract(cls)
                and not cls.__name__.startswith("_")
                and self.allows(cls)
                and _is_of_its_module(cls)
            ):
                found.setdefault(cls.__name__, []).append(cls)
        return found

    def allows(self, cls: type) -> bool:
        """Whether the class may be named, by where it is defined."""
        return self.imports.allows(f"{cls.__module__}.{cls.__qualname__}")

    def find(self, name: str, slots: list[tuple[type, int]]) -> tuple[type, int] | None:
        """The class of that short name or allowed path, if there is exactly one, and what its slot passes on."""
        for base, skip in slots:
            if "." not in name:
                found = _preferred(self.known(base).get(name, []))
                if len(found) == 1:
                    return found[0], skip
            elif self.imports.allows(name):
                cls = _imported(name)
                fits = inspect.isclass(cls) and issubclass(cls, base) and not is_abstract(cls)
                # Where it is defined must be allowed too, not only the name it is called by.
                if fits and self.allows(cls):
                    return cls, skip
        return None

    def why_not(self, name: str, bases: list[type]) -> str:
        """Why ``name`` is no class for a slot of these bases, with the nearest that are."""
        shown, family = quote(name), " or ".join(base.__name__ for base in bases)
        by_name: dict[str, list[type]] = {}
        for base in bases:
            for short, classes in self.known(base).items():
                by_name.setdefault(short, []).extend(classes)
        if len(by_name.get(name, [])) > 1:
            paths = ", ".join(f"{c.__module__}.{c.__qualname__}" for c in by_name[name])
            return f"{shown} means several classes; give the full path: {paths}"
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            if not self.imports.allows(name):
                package = name.split(".")[0]
                return (
                    f"{shown} may not be named by a recipe; if {quote(package)} is your own package, "
                    f"run with --allow {one_line(package, 40)}"
                )
            cls = _imported(name)
            if inspect.isclass(cls):
                state = "abstract" if is_abstract(cls) and issubclass(cls, tuple(bases)) else f"no {family}"
                return f"{shown} is {state}{hint(name, by_name, 'known')}"
            name = name.rpartition(".")[2]
        if any(cls.__name__ == name for base in bases for cls in subclasses(base)):
            return f"{shown} may not be named by a recipe{hint(name, by_name, 'known')}"
        return f"unknown {family} {shown}{hint(name, by_name, 'known')}"


def is_abstract(cls: type) -> bool:
    """Whether a class only says what its subclasses do: by ``abc``, or by methods of its own that are not written."""
    unwritten = ("NotImplementedError",)
    methods = (each for each in vars(cls).values() if inspect.isfunction(each))
    return inspect.isabstract(cls) or any(method.__code__.co_names == unwritten for method in methods)


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


def _is_of_its_module(cls: type) -> bool:
    """Whether its module holds it by its name; a class made while running may have taken another one's."""
    return getattr(sys.modules.get(cls.__module__), cls.__name__, cls) is cls


def _preferred(classes: list[type]) -> list[type]:
    """Where a name means several classes, the package's own comes before a library's."""
    own = [cls for cls in classes if cls.__module__.startswith("lit_transformer.")]
    return own or classes


def _imported(path: str) -> Any:
    """The object of an allowed path, None where there is none. Only called once the list allows the path."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
