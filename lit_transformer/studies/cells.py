"""The cells of a study: every arm under every setting with every seed, each a recipe of its own."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lit_transformer.errors import UserError
from lit_transformer.recipe import find_recipe, merge_recipes, read_recipe
from lit_transformer.recipe.suggest import hint
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark, Scalar, plain
from lit_transformer.studies.parts import Probe, Step
from lit_transformer.studies.study import SECTIONS, Study


@dataclass(frozen=True)
class Cell:
    """One training run of a study, and what is done with its checkpoint.

    Args:
        number: Its place in the study, from 0.
        arm: Name of its arm.
        setting: Factor and level of the grid.
        seed: Its seed.
    """

    number: int
    arm: str
    setting: tuple[tuple[str, str], ...]
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return ",".join([self.arm, *(f"{factor}={level}" for factor, level in self.setting), f"seed={self.seed}"])

    @property
    def group(self) -> str:
        """The name without the seed: cells that differ by chance alone share it."""
        return self.name.rpartition(",")[0]


class Plan:
    """All cells of a study, with their recipes.

    Args:
        study: The study.

    Raises:
        UserError: There are none, or something that is left out does not exist.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        for pattern in study.left_out:
            _check_pattern(pattern, study)
        combinations = [
            (arm, setting)
            for setting in itertools.product(*([(f, level) for level in levels] for f, levels in study.grid.items()))
            for arm in study.arms
        ]
        kept = [each for each in combinations if not any(_matches(each, pattern) for pattern in study.left_out)]
        self.dropped = len(combinations) - len(kept)
        if not kept:
            raise UserError(f"study {study.name}: the grid is empty; everything in it is left out")
        # Seeds are the outer loop: what a study has when it is stopped is a smaller study.
        order = [(arm, setting, seed) for seed in study.seeds for arm, setting in kept]
        self.cells = [Cell(number, *each) for number, each in enumerate(order)]
        self._base = [read_recipe(*find_recipe(name)) for name in study.recipe]
        self._overlays: dict[str, Mapping] = {}
        self._check_different()

    @property
    def groups(self) -> list[Cell]:
        """A cell of each group, the one with the first seed."""
        return [cell for cell in self.cells if cell.seed == self.study.seeds[0]]

    def recipe(self, cell: Cell) -> Mapping:
        """The recipe that a cell is trained by: the study's, its arm's, its setting's, its seed."""
        study = self.study
        parts = [*self._base, study.common, *self._level(study.arms[cell.arm])]
        for factor, level in cell.setting:
            parts += self._level(study.grid[factor][level])
        seeded = Mapping(Mark(COMMAND_LINE))
        for key in study.seed_keys:
            seeded.put(key, Scalar(Mark(COMMAND_LINE), cell.seed, str(cell.seed)), Mark(COMMAND_LINE))
        return merge_recipes([*map(_copied, parts), seeded])

    def steps(self, cell: Cell) -> list[Step]:
        """What is done once the cell is trained."""
        return [step for step in self.study.steps if not step.arms or cell.arm in step.arms]

    def step_recipe(self, cell: Cell, step: Step) -> Mapping:
        """The recipe of a step: the cell's, or that of the further training it looks at, changed as the step says."""
        earlier = next((each for each in self.study.steps if each.name == step.of and each.verb == "fit"), None)
        below = self.recipe(cell) if earlier is None else self.step_recipe(cell, earlier)
        parts = [below, *(self._overlay(name) for name in step.overlays)]
        parts += [step.changes] if step.changes is not None and step.changes.items else []
        tree = merge_recipes(map(_copied, parts))
        for key, factor in step.times.items():
            _multiply(tree, key, factor, step.name)
        return tree

    def fingerprint(self, cell: Cell, step: Step | None = None) -> str:
        """What a result depends on, as far as the study says it."""
        said: list[Any] = [plain(self.recipe(cell))]
        if step is not None:
            said += [plain(self.step_recipe(cell, step)), step.verb, step.of, step.checkpoint]
            said += [_said(step.probe)] if step.probe is not None else []
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def _check_different(self) -> None:
        """Refuses settings that train the same: levels that are equal, or that something later overwrites."""
        known: dict[tuple[str, str], Cell] = {}
        for cell in self.cells if len(self.study.seed_keys) == 0 else self.groups:
            key = cell.arm, json.dumps(plain(self.recipe(cell)), sort_keys=True)
            if key in known:
                raise UserError(
                    f"study {self.study.name}: {known[key].name} and {cell.name} are the same recipe; their levels are "
                    "equal, or overwritten by a later factor or by the seed (study.seed_keys): leave one out"
                )
            known[key] = cell

    def _level(self, level: Mapping) -> Iterator[Mapping]:
        names = level.items.get("overlays")
        if names is not None:
            yield from (self._overlay(name) for name in overlay_names(level))
        own = Mapping(level.mark)
        for key in SECTIONS:
            if key in level.items:
                own.put(key, level.items[key], level.marks[key])
        if own.items:
            yield own

    def _overlay(self, name: str) -> Mapping:
        if name not in self._overlays:
            self._overlays[name] = read_recipe(*find_recipe(name))
        return self._overlays[name]


def overlay_names(level: Mapping) -> list[str]:
    """The overlays that an arm or a level names.

    Raises:
        RecipeError: They are no list of names.
    """
    value = plain(level.items["overlays"])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise level.marks["overlays"].error("expected a list of names of overlays", "overlays")
    return names


def _matches(combination: tuple[str, tuple[tuple[str, str], ...]], pattern: dict[str, str]) -> bool:
    arm, setting = combination
    known = {"arm": arm, **dict(setting)}
    return all(known[key] == value for key, value in pattern.items())


def _check_pattern(pattern: dict[str, str], study: Study) -> None:
    known: dict[str, Sequence[str]] = {"arm": list(study.arms), **{f: list(levels) for f, levels in study.grid.items()}}
    for key, value in pattern.items():
        if key not in known:
            raise UserError(f"study.left_out: no factor {key!r}{hint(key, known, 'factors')}")
        if value not in known[key]:
            raise UserError(f"study.left_out: {key} has no {value!r}{hint(value, known[key], 'levels')}")


def _said(probe: Probe) -> str:
    """A probe in words that are the same tomorrow: one that says nothing of itself is known by its attributes."""
    own = type(probe).__repr__ is not object.__repr__
    return repr(probe) if own else f"{type(probe).__qualname__}({sorted(vars(probe).items())})"


def _copied(node: Any) -> Any:
    """A tree of its own: merging changes mappings in place."""
    if not isinstance(node, Mapping):
        return node
    return Mapping(node.mark, {key: _copied(value) for key, value in node.items.items()}, dict(node.marks))


def _multiply(tree: Mapping, key: str, factor: float, step: str) -> None:
    node: Any = tree
    *parents, name = key.split(".")
    for part in parents:
        node = node.items.get(part) if isinstance(node, Mapping) else None
    scalar = node.items.get(name) if isinstance(node, Mapping) else None
    value = scalar.value if isinstance(scalar, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"study.steps: {step}: times.{key}: the recipe has no number there; write it into the study")
    product = value * factor
    if isinstance(value, int):
        product = max(1, int(product))
    node.put(name, Scalar(node.marks[name], product, str(product)), node.marks[name])
