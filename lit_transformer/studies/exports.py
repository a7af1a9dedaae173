"""What a study found as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from lit_transformer.studies.parts import TRAINED
from lit_transformer.studies.results import COSTS, Results


def results_csv(results: Results) -> str:
    """A row for each cell, a column for each number; costs last."""
    factors = list(results.study["order"]["grid"])
    metrics = _columns(results)
    facts = ["parameters", "tokens", "flops"]
    head = ["cell", "arm", *factors, "seed", "status", *facts, "steps", "targets", *(f"{s}:{m}" for s, m in metrics)]
    rows: list[Sequence[Any]] = [[*head, *COSTS]]
    for outcome in results.outcomes:
        known = results.study["facts"].get(outcome.group, {})
        trained = outcome.step(TRAINED)
        row = [outcome.name, outcome.arm, *(dict(outcome.setting).get(f, "") for f in factors), outcome.seed]
        row += [outcome.status, *(known.get(f, "") for f in facts)]
        row += [trained.get("steps", ""), trained.get("targets", "")]
        row += [_number(outcome.step(step).get("metrics", {}).get(metric)) for step, metric in metrics]
        rows.append([*row, *(_number(outcome.cost(name)) for name in COSTS)])
    return _csv(rows)


def curves_csv(results: Results) -> str:
    """A row for each point of each curve."""
    rows: list[Sequence[Any]] = [["cell", "step", "metric", "optimizer_step", "value"]]
    for outcome in results.outcomes:
        for step in results.steps():
            for metric, points in sorted(outcome.step(step).get("curves", {}).items()):
                rows += [[outcome.name, step, metric, place, _number(value)] for place, value in points]
    return _csv(rows)


def _columns(results: Results) -> list[tuple[str, str]]:
    found = []
    for step in results.steps():
        names = {name for each in results.outcomes for name in each.step(step).get("metrics", {})}
        found += [(step, name) for name in sorted(names, key=_natural)]
    return found


def _natural(name: str) -> tuple[str, float, str]:
    series, _, place = name.rpartition("/")
    return (series, float(place), "") if place.replace(".", "", 1).isdigit() else (name, -1.0, name)


def _number(value: Any) -> str:
    return "" if value is None else repr(value)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows(rows)
    return target.getvalue()
