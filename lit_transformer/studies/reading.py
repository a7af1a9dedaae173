"""Reading a study's file: what is wrong is said with its line, before anything is trained."""

import importlib
from collections.abc import Iterator
from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any, cast

from lit_transformer.errors import UserError
from lit_transformer.recipe import ImportList, RecipeError, merge_recipes, read_recipe
from lit_transformer.recipe.errors import one_line, quote
from lit_transformer.recipe.overlay import normalised
from lit_transformer.recipe.reader import read_value
from lit_transformer.recipe.resolve import Resolver
from lit_transformer.recipe.suggest import hint
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark, Scalar, Sequence
from lit_transformer.studies import cost_figures, probes, together  # noqa: F401  so that a study can name them
from lit_transformer.studies.claims import Claim
from lit_transformer.studies.figures import StudyFigure
from lit_transformer.studies.parts import TRAINED
from lit_transformer.studies.search import Search
from lit_transformer.studies.study import SECTIONS, Study, find_study


class StudyList(ImportList):
    """What a study's own part may name: the parts of studies, beside what recipes may."""

    def allows(self, path: str) -> bool:
        """See the base class."""
        return path.startswith("lit_transformer.studies.") or super().allows(path)


def read_study(configs: Several[str], overrides: Several[tuple[str, str]] = ()) -> Study:
    """Reads a study and its overlays.

    An overlay may change the study (``study:``) as well as all its recipes (``model:``, ``data:``, ``trainer:``), so
    that ``overlays/tiny`` is one.

    Args:
        configs: The study's file or name, then overlays.
        overrides: Keys and values of the command line, in order.

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
    study = _resolved(node, merged.marks["study"])
    study.name = Path(configs[0]).stem
    for key in SECTIONS:
        if key in merged.items:
            study.common.put(key, merged.items[key], merged.marks[key])
    _check(study, node)
    return study


def _resolved(node: Mapping, mark: Mark) -> Study:
    """The study without arms and grid, which are recipes and checked as such."""
    own = Mapping(node.mark)
    for key, value in node.items.items():
        if key not in ("arms", "grid", "left_out", "search"):
            own.put(key, value, node.marks[key])
    steps = own.items.get("steps")
    items = steps.items if isinstance(steps, Sequence) else []
    changes = [(_sections(item), _times(item)) for item in items]
    recipe = own.items.get("recipe")
    if isinstance(recipe, Scalar):
        own.put("recipe", Sequence(recipe.mark, [recipe]), own.marks["recipe"])
    resolver = Resolver(StudyList())
    full = resolver.value(own, Study, "study", mark)
    resolver.check()
    study = cast(Study, made(full))
    for step, (change, times) in zip(study.steps, changes, strict=True):
        step.changes, step.times = change, times
    study.search = _search(node)
    study.arms = {} if study.search is not None else _levels(node, "arms", "study.arms")
    study.grid = _grid(node)
    study.left_out = _left_out(node)
    return study


def _search(node: Mapping) -> Search | None:
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
    resolver = Resolver(StudyList())
    full = resolver.value(value, Search, "study.search", mark)
    resolver.check()
    return cast(Search, made(full))


def _with_class(node: Mapping, path: str) -> Iterator[tuple[str, Any, Mark]]:
    for key, value in node.items.items():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping) and "class_path" not in value.items:
            yield from _with_class(value, here)
        else:
            yield here, value, node.marks[key]


def made(value: Any) -> Any:
    """The parts that a resolved tree says."""
    if isinstance(value, list):
        return [made(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_path" not in value:
        return {key: made(item) for key, item in value.items()}
    module, _, name = value["class_path"].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return cls(**{key: made(item) for key, item in value.get("init_args", {}).items()})


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


def _numbers(node: Any, path: str, mark: Mark) -> Iterator[tuple[str, float]]:
    if isinstance(node, Mapping):
        for key, value in node.items.items():
            yield from _numbers(value, f"{path}.{key}".lstrip("."), node.marks[key])
    elif isinstance(node, Scalar) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield path, float(node.value)
    else:
        raise mark.error("expected a number", f"study.steps.times.{path}")


def _levels(node: Mapping, key: str, path: str) -> dict[str, Mapping]:
    value = node.items.get(key)
    if not isinstance(value, Mapping):
        mark = node.marks.get(key, node.mark)
        raise mark.error("is missing, expected names, and what each changes of the recipe", path)
    result = {}
    for name, level in value.items.items():
        mark = value.marks[name]
        if isinstance(level, Scalar) and level.value is None:
            continue  # an overlay takes it out
        _check_name(name, mark, path)
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


def _grid(node: Mapping) -> dict[str, dict[str, Mapping]]:
    """Factors by name: a list of values of a key, or levels written like arms."""
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
                result[key.rpartition(".")[2]] = _values(key, values, mark)
        else:
            _check_name(name, value.marks[name], "study.grid")
            result[name] = _levels(value, name, f"study.grid.{name}")
    return result


def _lists(node: Any, path: str, mark: Mark) -> list[tuple[str, Sequence, Mark]]:
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
        _check_name(name, item.mark, f"study.grid.{key}")
        if name in result:
            raise item.mark.error(f"{quote(name)} is there twice; remove one", f"study.grid.{key}")
        level = Mapping(item.mark)
        level.put(key, item, item.mark)
        result[name] = normalised(level)
    return result


def _left_out(node: Mapping) -> list[dict[str, str]]:
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


def _check_name(name: str, mark: Mark, path: str) -> None:
    if not name or len(name) > 60 or not all(c.isalnum() or c in "._+- " for c in name) or name.startswith("."):
        raise mark.error(f"{quote(name)} is no name: use letters, digits, spaces and . _ + -", path)


def _check(study: Study, node: Mapping) -> None:
    """What the types do not say."""

    def fail(key: str, message: str) -> RecipeError:
        return node.marks.get(key, node.mark).error(message, f"study.{key}")

    if not study.seeds:
        raise fail("seeds", "is empty; nothing would be trained")
    if len(set(study.seeds)) != len(study.seeds) or any(not 0 <= seed < 2**32 for seed in study.seeds):
        raise fail("seeds", "must be different whole numbers from 0")
    if not study.recipe:
        raise fail("recipe", "is empty; name the recipe that all cells begin with")
    if study.search is not None and study.search.measure not in study.measures:
        raise fail(
            "search", f"there is no measure {quote(study.search.measure)}{hint(study.search.measure, study.measures)}"
        )
    if study.baseline is not None and study.baseline not in study.arms:
        raise fail("baseline", f"there is no arm {quote(study.baseline)}{hint(study.baseline, study.arms, 'arms')}")
    names = [TRAINED]
    for step in study.steps:
        _check_name(step.name.replace(" ", "/"), node.marks["steps"], "study.steps")  # measures end names at spaces
        if step.name in names:
            raise fail("steps", f"the name {quote(step.name)} is there twice")
        if step.of not in names:
            raise fail("steps", f"{step.name}: no step {quote(step.of)} comes before it{hint(step.of, names)}")
        earlier = next((each for each in study.steps if each.name == step.of), None)
        if earlier is not None and earlier.arms and not (step.arms and set(step.arms) <= set(earlier.arms)):
            raise fail("steps", f"{step.name}: arms must be among those of {step.of}: {', '.join(earlier.arms)}")
        if earlier is not None and earlier.verb != "fit":
            raise fail("steps", f"{step.name}: {step.of} writes no checkpoint; name a step whose verb is fit")
        for arm in step.arms:
            if arm not in study.arms:
                raise fail("steps", f"{step.name}: there is no arm {quote(arm)}{hint(arm, study.arms, 'arms')}")
        if (step.verb == "probe") != (step.probe is not None):
            raise fail("steps", f"{step.name}: 'verb: probe' and the key 'probe' come together")
        names.append(step.name)
    if not study.measures:
        raise fail("measures", "is empty; there is nothing to compare by")
    for measure in study.compared:
        for name in measure.steps:
            if name not in names:
                raise fail("measures", f"{measure.name}: there is no step {quote(name)}{hint(name, names, 'steps')}")
    for claim in study.claims:
        for factor, level in claim.where.items():
            if level not in study.grid.get(factor, {}):
                known_levels = [f"{f}: {name}" for f, levels in study.grid.items() for name in levels]
                found = hint(f"{factor}: {level}", known_levels, "settings")
                raise fail("claims", f"{claim.text!r}: where: there is no setting {factor}: {quote(level)}{found}")
    parts: list[Claim | StudyFigure] = [*study.claims, *study.figures]
    for part in parts:
        try:
            part.check(list(study.arms), list(study.measures), names)
        except UserError as error:
            raise fail("claims" if isinstance(part, Claim) else "figures", str(error)) from error
