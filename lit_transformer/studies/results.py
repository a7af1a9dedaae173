"""What a study found: the results of its cells, read from its folder."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lit_transformer.errors import UserError
from lit_transformer.recipe.signatures import parameters
from lit_transformer.recipe.tree import plain
from lit_transformer.studies.cells import Plan
from lit_transformer.studies.claims import Claim
from lit_transformer.studies.figures import StudyFigure
from lit_transformer.studies.making import part_of, study_list
from lit_transformer.studies.parts import TRAINED, Measure, Number, Part
from lit_transformer.studies.program import Facts
from lit_transformer.studies.statistics import Difference, Mean, holm, mean, paired
from lit_transformer.studies.study import SECTIONS
from lit_transformer.studies.worker import read_results

COSTS = {
    "seconds": "training time (s)",
    "processor_seconds": "CPU time of training (s)",
    "tokens_per_second": "targets/s",
    "memory": "peak memory (bytes)",
}
"""What a run cost: the columns that never come out the same twice."""

Setting = tuple[tuple[str, str], ...]

KEYS = ("name", "question", "arms", "order", "seeds", "steps", "measures", "claims", "figures", "facts", "cells")
"""What ``study.json`` must have."""


def described(plan: Plan, facts: dict[str, Facts]) -> dict[str, Any]:
    """A study as plain data, from which its report is written."""
    study = plan.study
    common = {key: plain(value) for key, value in study.common.items.items()}
    return {
        "name": study.name,
        "question": study.question,
        "recipe": study.recipe,
        "common": common,
        "arms": {name: _plain_level(level) for name, level in study.arms.items()},
        "grid": {f: {n: _plain_level(level) for n, level in levels.items()} for f, levels in study.grid.items()},
        "order": {"arms": list(study.arms), "grid": {f: list(levels) for f, levels in study.grid.items()},
                  "measures": list(study.measures)},
        "left_out": study.left_out,
        "dropped": plan.dropped,
        "baseline": study.baseline or next(iter(study.arms)),
        "seeds": study.seeds,
        "steps": [_plain_step(step) for step in study.steps],
        "measures": study.measures,
        "claims": [_said(claim) for claim in study.claims],
        "figures": [_said(figure) for figure in study.figures],
        "match": asdict(study.match),
        "notes": study.notes,
        "facts": {name: each.plain() for name, each in facts.items()},
        "cells": [{"name": c.name, "arm": c.arm, "setting": [list(s) for s in c.setting], "seed": c.seed,
                   "group": c.group} for c in plan.cells],
    }  # fmt: skip


def _plain_level(level: Any) -> Any:
    return plain(level)


def _plain_step(step: Any) -> dict[str, Any]:
    said = {key: value for key, value in vars(step).items() if key not in ("changes", "probe")}
    said["changes"] = {key: plain(step.changes.items[key]) for key in SECTIONS if key in step.changes.items}
    said["probe"] = None if step.probe is None else _said(step.probe)
    return said


def _said(part: Any) -> dict[str, Any]:
    """A part as the tree that makes it again: its arguments are its fields, or attributes of their names."""
    kind: type = type(part)
    names = [each.name for each in fields(part)] if is_dataclass(part) else list(parameters(kind))
    arguments = {name: _said_value(getattr(part, name)) for name in names}
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}


def _said_value(value: Any) -> Any:
    if isinstance(value, Part):
        return _said(value)
    if isinstance(value, list | tuple):
        return [_said_value(each) for each in value]
    return {key: _said_value(each) for key, each in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Outcome:
    """A cell and what is known of it.

    Args:
        name: Its name.
        arm: Its arm.
        setting: Factors and levels.
        seed: Its seed.
        group: Its name without the seed.
        results: What it has written; empty where nothing.
    """

    name: str
    arm: str
    setting: Setting
    seed: int
    group: str
    results: dict[str, Any]

    def step(self, name: str) -> dict[str, Any]:
        """A step's results; empty where it was not done."""
        found: dict[str, Any] = self.results.get("steps", {}).get(name, {})
        return found

    @property
    def status(self) -> str:
        """How training ended, ``missing`` where it has not."""
        otherwise = "failed" if "failure" in self.results else "missing"
        return str(self.step(TRAINED).get("outcome", otherwise))

    def number(self, number: Number) -> float | None:
        """One number; None where there is none, where it is not finite, and where its step did not end: what was
        logged before a divergence is not what the others have at the end."""
        step = self.step(number.step)
        value = step.get("metrics", {}).get(number.metric) if step.get("outcome") == "done" else None
        return float(value) if value is not None and math.isfinite(value) else None

    def measured(self, measure: Measure) -> float | None:
        """A measure's value."""
        first = self.number(measure.first)
        if measure.second is None or first is None:
            return first
        second = self.number(measure.second)
        if second is None or (measure.operation == "/" and second == 0):
            return None
        return first / second if measure.operation == "/" else first - second

    def lost(self, measure: Measure) -> str:
        """Why there is no number though all was done: ``diverged`` or ``not finite``; empty where that is not so."""
        if any(self.step(step).get("outcome") == "diverged" for step in (TRAINED, *measure.steps)):
            return "diverged"
        found = [(self.step(number.step).get("metrics", {}), number.metric) for number in measure.numbers]
        return "not finite" if any(metric in metrics and metrics[metric] is None for metrics, metric in found) else ""

    def cost(self, name: str) -> float | None:
        """What training cost."""
        value = self.step(TRAINED).get("cost", {}).get(name)
        return None if value is None else float(value)


class Results:
    """All that a study has found so far.

    Args:
        folder: The study's folder.
        allow: Packages of one's own whose figures and claims it may name.

    Raises:
        UserError: There is no study in it.
    """

    def __init__(self, folder: str | Path, allow: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        self.imports = study_list(allow)
        path = self.folder / "study.json"
        try:
            self.study: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{path}: not there; --output names the folder of a study that was begun") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from error
        if not isinstance(self.study, dict):
            raise UserError(f"{path}: is no study; --output names the folder of a study that was begun")
        if missing := [key for key in KEYS if key not in self.study]:
            raise UserError(f"{path}: is no study: {', '.join(missing)} not there")
        self.outcomes = [self._outcome(cell) for cell in self.study["cells"]]
        names = self.study["order"].get("measures", self.study["measures"])  # the file's keys are sorted
        self.measures = [Measure.parse(name, self.study["measures"][name]) for name in names]

    def _outcome(self, cell: dict[str, Any]) -> Outcome:
        found = read_results(self.folder / "results" / f"{cell['name']}.json")
        setting = tuple((factor, level) for factor, level in cell["setting"])
        return Outcome(cell["name"], cell["arm"], setting, cell["seed"], cell["group"], found)

    @cached_property
    def claims(self) -> list[Claim]:
        """What was expected.

        Raises:
            RecipeError: One that may not be named: a folder may come from anywhere.
        """
        return [self._part(said, Claim, f"claims[{i}]") for i, said in enumerate(self.study["claims"])]

    @cached_property
    def figures(self) -> list[StudyFigure]:
        """What is drawn.

        Raises:
            RecipeError: One that may not be named.
        """
        return [self._part(said, StudyFigure, f"figures[{i}]") for i, said in enumerate(self.study["figures"])]

    def _part(self, said: Any, type_: type, key: str) -> Any:
        return part_of(said, type_, key, str(self.folder / "study.json"), self.imports)

    @property
    def arms(self) -> list[str]:
        """Names of the arms that have a cell, in the study's order."""
        there = {outcome.arm for outcome in self.outcomes}
        return [str(name) for name in self.study["order"]["arms"] if name in there]

    @property
    def settings(self) -> list[Setting]:
        """The settings, in the study's order."""
        return list(dict.fromkeys(outcome.setting for outcome in self.outcomes))

    def of(self, arm: str, setting: Setting) -> list[Outcome]:
        """The cells of an arm under a setting, by seed."""
        return [each for each in self.outcomes if each.arm == arm and each.setting == setting]

    def values(self, arm: str, setting: Setting, measure: Measure) -> dict[int, float]:
        """A measure's values by seed, where there are some."""
        found = {each.seed: each.measured(measure) for each in self.of(arm, setting)}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, arm: str, setting: Setting, measure: Measure) -> Mean | None:
        """A measure's mean over seeds."""
        values = self.values(arm, setting, measure)
        return mean(list(values.values())) if values else None

    def lost(self, arm: str, setting: Setting, measure: Measure) -> dict[int, str]:
        """The seeds that diverged on the way to a measure, or whose number is not finite, and which of the two.

        What is left of the others flatters the arm.
        """
        return {each.seed: why for each in self.of(arm, setting) if (why := each.lost(measure))}

    def why(self, arm: str, setting: Setting, measure: Measure) -> str:
        """Why an arm has no number: what came of its steps; empty where they were done and measured something else."""
        cells = self.of(arm, setting)
        for outcome in cells:
            for step in [TRAINED, *measure.steps]:
                said = outcome.step(step).get("outcome")
                if said not in (None, "done"):
                    return str(said)
        if other := {outcome.status for outcome in cells} - {"done", "diverged"}:
            return min(other)
        found = [outcome.step(each.step).get("metrics", {}) for outcome in cells for each in measure.numbers]
        names = {each.metric for each in measure.numbers}
        return "not finite" if any(each.get(name, 0) is None for each in found for name in names) else ""

    def baseline(self, setting: Setting) -> str:
        """The arm that the others are compared with under a setting."""
        wanted = str(self.study["baseline"])
        there = [arm for arm in self.arms if self.of(arm, setting)]
        return wanted if wanted in there else there[0]

    def differences(self, setting: Setting, measure: Measure) -> dict[str, Difference]:
        """Every other arm less the baseline, on the seeds that both have, with p-values adjusted for all of them.

        No p where seeds of one of them diverged: those that did not were not left at random.
        """
        base = self.values(self.baseline(setting), setting, measure)
        base_lost = self.lost(self.baseline(setting), setting, measure)
        found: dict[str, Difference] = {}
        for arm in self.arms:
            if arm == self.baseline(setting):
                continue
            mine = self.values(arm, setting, measure)
            seeds = [seed for seed in mine if seed in base]
            if seeds:
                difference = paired([mine[s] for s in seeds], [base[s] for s in seeds])
                left = base_lost or self.lost(arm, setting, measure)
                found[arm] = Difference(difference.mean, math.nan) if left else difference
        adjusted = holm([each.p for each in found.values()])
        return {arm: Difference(d.mean, d.p, p) for (arm, d), p in zip(found.items(), adjusted, strict=True)}

    @property
    def clock(self) -> str:
        """The cost that arms are compared at: seconds that a CPU computed, which other work on it changes little.

        Seconds on the wall where not every run knows them: on an accelerator.
        """
        done = [each for each in self.outcomes if each.status == "done"]
        known = all(each.cost("processor_seconds") for each in done)
        return "processor_seconds" if done and known else "seconds"

    def measure(self, name: str) -> Measure:
        """A measure by its name."""
        return next(measure for measure in self.measures if measure.name == name)

    def steps(self) -> Iterator[str]:
        """Names of the steps."""
        yield TRAINED
        yield from (step["name"] for step in self.study["steps"])
