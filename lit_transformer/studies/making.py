"""Parts of a study from what says them: a file of one's own, or the folder of a study that somebody sent."""

import importlib
from collections.abc import Sequence as Several
from typing import Any

from lit_transformer.recipe import ImportList
from lit_transformer.recipe.resolve import Resolver
from lit_transformer.recipe.tree import Mark, Node, from_plain
from lit_transformer.studies import cost_figures, probes, together  # noqa: F401  so that a study can name them


class StudyList(ImportList):
    """What a study's own part may name: the parts of studies and of packages that are allowed, beside what recipes may.

    Args:
        packages: What ``--allow`` was given.
    """

    def allows(self, path: str) -> bool:
        """See the base class."""
        named = all(part.isidentifier() for part in path.split("."))
        return (named and path.startswith("lit_transformer.studies.")) or super().allows(path)


def study_list(allow: Several[str] = ()) -> StudyList:
    """The list of what a study's parts may name; packages of one's own are imported.

    Raises:
        UserError: A package that cannot be allowed, or imported.
    """
    if allow:
        ImportList(allow).enforce()
    return StudyList(allow)


def resolved(node: Node, type_: Any, key: str, mark: Mark, imports: ImportList) -> Any:
    """The part that a tree says, checked against everything that it names.

    Raises:
        RecipeError: What is wrong; nothing that is not on the list was imported.
    """
    resolver = Resolver(imports)
    full = resolver.value(node, type_, key, mark)
    resolver.check()
    return _made(full)


def part_of(said: Any, type_: Any, key: str, file: str, imports: ImportList) -> Any:
    """The part that plain data of a file says, which may have come from anywhere.

    Args:
        said: A class and its arguments, as ``described`` writes them.
        type_: The base that it must have.
        key: Where it stands in the file.
        file: The file.
        imports: What may be named.

    Raises:
        RecipeError: What is wrong; nothing that is not on the list was imported.
    """
    mark = Mark(file)
    return resolved(from_plain(_lifted(said), mark, key), type_, key, mark, imports)


def _lifted(said: Any) -> Any:
    """The same with arguments beside the name of their class, as recipes have them."""
    if isinstance(said, list):
        return [_lifted(each) for each in said]
    if not isinstance(said, dict):
        return said
    arguments = said.get("init_args") if "class_path" in said else None
    rest = {key: _lifted(value) for key, value in said.items() if key != "init_args" or arguments is None}
    return rest | (_lifted(arguments) if isinstance(arguments, dict) else {})


def _made(value: Any) -> Any:
    """The parts of a tree that was checked."""
    if isinstance(value, list):
        return [_made(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_path" not in value:
        return {key: _made(item) for key, item in value.items()}
    module, _, name = value["class_path"].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return cls(**{key: _made(item) for key, item in value.get("init_args", {}).items()})
