"""Arms and settings of a study's file: names, and what each changes of the recipe."""

from typing import Any

from lit_transformer.recipe.errors import one_line, quote
from lit_transformer.recipe.overlay import normalised
from lit_transformer.recipe.suggest import hint
from lit_transformer.recipe.tree import Mapping, Mark, Scalar, Sequence
from lit_transformer.studies.study import SECTIONS


def levels_of(node: Mapping, key: str, path: str) -> dict[str, Mapping]:
    """Names, and what each changes of the recipe: arms, or the levels of a factor.

    Raises:
        RecipeError: Something else.
    """
    value = node.items.get(key)
    if not isinstance(value, Mapping):
        mark = node.marks.get(key, node.mark)
        raise mark.error("is missing, expected names, and what each changes of the recipe", path)
    result = {}
    for name, level in value.items.items():
        mark = value.marks[name]
        if isinstance(level, Scalar) and level.value is None:
            continue  # an overlay takes it out
        check_name(name, mark, path)
        if not isinstance(level, Mapping):
            raise mark.error("expected keys and values such as 'overlays: [...]' or 'model: {...}'", f"{path}.{name}")
        for inner in level.items:
            if inner not in ("overlays", *SECTIONS):
                found = hint(inner, ("overlays", *SECTIONS))
                raise level.marks[inner].error(f"unknown key{found}", f"{path}.{name}.{one_line(inner, 100)}")
        result[name] = level
    if not result:
        raise node.marks[key].error("is empty; name what is compared", path)
    return result


def grid_of(node: Mapping) -> dict[str, dict[str, Mapping]]:
    """Factors by name: a list of values of a key, or levels written like arms.

    Raises:
        RecipeError: Something else, none at all, or two of one name.
    """
    value = node.items.get("grid")
    if value is None or (isinstance(value, Scalar) and value.value is None):
        return {}
    if not isinstance(value, Mapping):
        raise node.marks["grid"].error("expected keys of the recipe with lists of values", "study.grid")
    result: dict[str, dict[str, Mapping]] = {}
    for name, factor in value.items.items():
        if isinstance(factor, Scalar) and factor.value is None:
            continue
        if name in SECTIONS:
            for key, values, mark in _lists(factor, name, value.marks[name]):
                _put(result, key.rpartition(".")[2], _values(key, values, mark), mark, key)
        else:
            check_name(name, value.marks[name], "study.grid")
            _put(result, name, levels_of(value, name, f"study.grid.{name}"), value.marks[name], name)
    if not value.items:
        raise node.marks["grid"].error("is empty; nothing would be trained. Leave it out where there is one setting",
                                       "study.grid")  # fmt: skip
    return result


def _put(result: dict[str, dict[str, Mapping]], name: str, levels: dict[str, Mapping], mark: Mark, key: str) -> None:
    """A factor, whose name is the last word of its key."""
    own = f"name the factor yourself: {{{name}-2: {{LEVEL: {{{key}: VALUE}}}}}}"
    if name in ("arm", "seed"):
        raise mark.error(f"{quote(name)} is what every cell has already; {own}", f"study.grid.{key}")
    if name in result:
        raise mark.error(f"there are two factors of the name {quote(name)}; {own}", f"study.grid.{key}")
    result[name] = levels


def _lists(node: Any, path: str, mark: Mark) -> list[tuple[str, Sequence, Mark]]:
    if isinstance(node, Scalar) and node.value is None:
        return []  # an overlay takes it out
    if isinstance(node, Sequence):
        return [(path, node, mark)]
    if isinstance(node, Mapping):
        return [found for key, v in node.items.items() for found in _lists(v, f"{path}.{key}", node.marks[key])]
    raise mark.error("expected a list of values", f"study.grid.{path}")


def _values(key: str, values: Sequence, mark: Mark) -> dict[str, Mapping]:
    if not values.items:
        raise mark.error("is an empty list; nothing would be trained", f"study.grid.{key}")
    result: dict[str, Mapping] = {}
    for item in values.items:
        named = item.items.get("class_path") if isinstance(item, Mapping) else item
        name = named.text if isinstance(named, Scalar) else ""
        check_name(name, item.mark, f"study.grid.{key}")
        if name in result:
            raise item.mark.error(f"{quote(name)} is there twice; remove one", f"study.grid.{key}")
        level = Mapping(item.mark)
        level.put(key, item, item.mark)
        result[name] = normalised(level)
    return result


def left_out_of(node: Mapping) -> list[dict[str, str]]:
    """The combinations of arms and levels that are not trained.

    Raises:
        RecipeError: Something else.
    """
    value = node.items.get("left_out")
    if value is None or (isinstance(value, Scalar) and value.value is None):
        return []
    items = value.items if isinstance(value, Sequence) else []
    found = [
        {key: child.text for key, child in item.items.items() if isinstance(child, Scalar)}
        for item in items
        if isinstance(item, Mapping)
    ]
    if len(found) != len(items) or not found:
        raise node.marks["left_out"].error("expected a list of {arm: NAME, FACTOR: LEVEL}", "study.left_out")
    return found


def check_name(name: str, mark: Mark, path: str) -> None:
    """Refuses what cannot be part of the name of a file.

    Raises:
        RecipeError: It is such a name.
    """
    if not name or len(name) > 60 or not all(c.isalnum() or c in "._+- " for c in name) or name.startswith("."):
        raise mark.error(f"{quote(name)} is no name: use letters, digits, spaces and . _ + -", path)
