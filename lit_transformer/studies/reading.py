"""Reading a study's file: what is wrong is said with its line, before anything is trained."""

from collections.abc import Iterator
from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any, cast

from lit_transformer.recipe import merge_recipes, read_recipe
from lit_transformer.recipe.errors import one_line
from lit_transformer.recipe.reader import read_value
from lit_transformer.recipe.signatures import parameters
from lit_transformer.recipe.suggest import hint
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark, Scalar, Sequence
from lit_transformer.studies.checking import check_study
from lit_transformer.studies.levels import grid_of, left_out_of, levels_of
from lit_transformer.studies.making import StudyList, resolved, study_list
from lit_transformer.studies.search import Search
from lit_transformer.studies.study import SECTIONS, Study, find_study


def read_study(configs: Several[str], overrides: Several[tuple[str, str]] = (), allow: Several[str] = ()) -> Study:
    """Reads a study and its overlays.

    An overlay may change the study (``study:``) as well as all its recipes (``model:``, ``data:``, ``trainer:``), so
    that ``overlays/tiny`` is one.

    Args:
        configs: The study's file or name, then overlays.
        overrides: Keys and values of the command line, in order.
        allow: Packages of one's own whose probes, figures and claims it may name.

    Raises:
        RecipeError: What is wrong, with file, line and key.
    """
    trees = [read_recipe(*find_study(name)) for name in configs]
    merged = merge_recipes([*trees, Mapping(Mark(COMMAND_LINE))])
    for key, text in overrides:
        one = Mapping(Mark(COMMAND_LINE))
        one.put(key, read_value(text), Mark(COMMAND_LINE))
        merged = merge_recipes([merged, one])
    node = merged.items.get("study")
    if not isinstance(node, Mapping):
        raise merged.mark.error("is no study: expected the key 'study'", "study")
    for key in merged.items:
        if key not in ("study", *SECTIONS):
            raise merged.marks[key].error(f"unknown key{hint(key, ('study', *SECTIONS))}", one_line(key, 100))
    study = _study(node, merged.marks["study"], study_list(allow))
    study.name = Path(configs[0]).stem
    for key in SECTIONS:
        if key in merged.items:
            study.common.put(key, merged.items[key], merged.marks[key])
    check_study(study, node)
    return study


BESIDE = ("arms", "grid", "left_out", "search")
"""Keys of a study that are recipes, or have key paths for keys."""


def _study(node: Mapping, mark: Mark, imports: StudyList) -> Study:
    """The study without arms and grid, which are recipes and checked as such."""
    own = Mapping(node.mark)
    for key, value in node.items.items():
        if key not in BESIDE:
            own.put(key, value, node.marks[key])
            if key not in parameters(Study):
                raise node.marks[key].error(
                    f"unknown key{hint(key, (*parameters(Study), *BESIDE))}", f"study.{one_line(key, 100)}"
                )
    steps = own.items.get("steps")
    items = steps.items if isinstance(steps, Sequence) else []
    changes = [(_sections(item), _times(item)) for item in items]
    recipe = own.items.get("recipe")
    if isinstance(recipe, Scalar):
        own.put("recipe", Sequence(recipe.mark, [recipe]), own.marks["recipe"])
    notes = _texts(own)
    study = cast(Study, resolved(own, Study, "study", mark, imports))
    for step, (change, times) in zip(study.steps, changes, strict=True):
        step.changes, step.times = change, times
    study.notes = notes
    study.search = _search(node, imports)
    study.arms = {} if study.search is not None else levels_of(node, "arms", "study.arms")
    study.grid = grid_of(node)
    study.left_out = left_out_of(node)
    return study


def _search(node: Mapping, imports: StudyList) -> Search | None:
    """The search, whose ranges have key paths for keys."""
    value = node.items.get("search")
    if value is None:
        return None
    mark = node.marks["search"]
    if "arms" in node.items:
        raise mark.error("proposes the arms; leave out study.arms", "study.search")
    if isinstance(value, Mapping) and isinstance(ranges := value.items.get("ranges"), Mapping):
        flat = Mapping(ranges.mark)
        for key, child, place in _with_class(ranges, ""):
            flat.put(key, child, place)
        value.put("ranges", flat, value.marks["ranges"])
    return cast(Search, resolved(value, Search, "study.search", mark, imports))


def _with_class(node: Mapping, path: str) -> Iterator[tuple[str, Any, Mark]]:
    for key, value in node.items.items():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping) and "class_path" not in value.items:
            yield from _with_class(value, here)
        else:
            yield here, value, node.marks[key]


def _sections(node: Any) -> Mapping:
    """Takes the sections of a recipe out of a step."""
    result = Mapping(node.mark)
    if isinstance(node, Mapping):
        for key in [key for key in node.items if key in SECTIONS]:
            result.put(key, node.items.pop(key), node.marks.pop(key))
    return result


def _times(node: Any) -> dict[str, float]:
    """Takes the factors out of a step, whose keys are key paths."""
    value = node.items.pop("times", None) if isinstance(node, Mapping) else None
    if value is None:
        return {}
    found = dict(_numbers(value, "", node.marks["times"]))
    if not found:
        raise node.marks["times"].error("is empty, expected keys of the recipe with factors", "study.steps.times")
    return found


def _texts(node: Mapping) -> dict[str, str]:
    """Takes the notes out of the study, whose keys may have dots (1.5L)."""
    value = node.items.pop("notes", None)
    if value is None or (isinstance(value, Scalar) and value.value is None):
        return {}
    return dict(_words(value, "", node.marks["notes"]))


def _words(node: Any, path: str, mark: Mark) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items.items():
            yield from _words(value, f"{path}.{key}".lstrip("."), node.marks[key])
    elif isinstance(node, Scalar) and isinstance(node.value, str):
        yield path, node.value
    else:
        raise mark.error("expected words", f"study.notes.{path}".rstrip("."))


def _numbers(node: Any, path: str, mark: Mark) -> Iterator[tuple[str, float]]:
    if isinstance(node, Mapping):
        for key, value in node.items.items():
            yield from _numbers(value, f"{path}.{key}".lstrip("."), node.marks[key])
    elif isinstance(node, Scalar) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield path, float(node.value)
    else:
        raise mark.error("expected a number", f"study.steps.times.{path}")
