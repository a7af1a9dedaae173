"""The tables of a report, as names of columns and rows of text, and as CSV."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_transformer.studies.figures import fact_of, setting_name, titled
from lit_transformer.studies.parts import TRAINED, Measure
from lit_transformer.studies.results import COSTS, Outcome, Results, Setting
from lit_transformer.studies.statistics import CONFIDENCE, Difference, Mean, mean


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: What stands above it.
        columns: Names of the columns; the first one's cells are names.
        rows: Rows of text.
        marked: Number of the row that the others are compared with.
        note: What stands below.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None
    note: str = ""
    classes: dict[int, list[str]] = field(default_factory=dict)
    """Of a row the class of each cell, for the page."""


def compared(results: Results, setting: Setting, measure: Measure) -> Table | None:
    """The arms by one measure: means, differences from the baseline, paired tests."""
    baseline = results.baseline(setting)
    differences = results.differences(setting, measure)
    rows, marked = [], None
    for arm in results.arms:
        if not results.of(arm, setting):
            continue
        found = results.mean(arm, setting, measure)
        if found is None:
            rows.append([arm, "0", _why(results, arm, setting, measure), "", "", "", ""])
            continue
        if arm == baseline:
            marked = len(rows)
        cells = _difference(differences[arm]) if arm in differences else ["", "", ""]
        spread = "" if math.isnan(found.deviation) else f"{found.deviation:.2g}"
        rows.append([arm, str(found.count), plus_minus(found), spread, *cells])
    if all(row[1] == "0" for row in rows):
        return None
    columns = ["arm", "seeds", "mean", "sd", f"less {baseline}", "p", "p (Holm)"]
    return Table(titled(f"{measure.name}: {measure}", setting), columns, rows, marked)


def _why(results: Results, arm: str, setting: Setting, measure: Measure) -> str:
    """Why an arm has no number."""
    for outcome in results.of(arm, setting):
        for step in [TRAINED, *measure.steps]:
            said = outcome.step(step).get("outcome")
            if said not in (None, "done"):
                return str(said)
    return "no number"


def plus_minus(found: Mean) -> str:
    """A mean with half of its interval."""
    return f"{found.value:.5g}" + ("" if math.isnan(found.half) else f" ± {found.half:.2g}")


def _difference(found: Difference) -> list[str]:
    sign = f"{found.mean.value:+.4g}" + ("" if math.isnan(found.mean.half) else f" ± {found.mean.half:.2g}")
    return [sign, _p(found.p), _p(found.adjusted)]


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def cost(results: Results, setting: Setting) -> Table:
    """What each arm is and what it took, beside the baseline."""
    baseline = results.baseline(setting)
    shared = shared_seconds(results, setting)
    rows: list[list[str]] = []
    marked = None
    for arm in results.arms:
        cells = results.of(arm, setting)
        if not cells:
            continue
        if arm == baseline:
            marked = len(rows)
        row = [arm]
        for fact, style in (("parameters", ",.0f"), ("flops", ".4g"), ("tokens", ",.0f")):
            mine, base = fact_of(results, arm, setting, fact), fact_of(results, baseline, setting, fact)
            row.append("" if mine is None else f"{mine:{style}}" + _apart(mine, base))
        for name, style, scale in (
            ("seconds", ",.1f", 1.0),
            ("processor_seconds", ",.1f", 1.0),
            ("tokens_per_second", ",.0f", 1.0),
            ("memory", ",.0f", 1e6),
        ):
            known = [value for each in cells if (value := each.cost(name)) is not None]
            row.append(f"{math.fsum(known) / len(known) / scale:{style}}" if known else "")
        rows.append([*row, *_at(results, arm, setting, shared)])
    columns = [
        "arm",
        "parameters",
        "FLOPs a token",
        "tokens",
        "seconds",
        "CPU seconds",
        "targets/s",
        "peak memory (MB)",
    ]
    columns += [f"val/loss after {shared:,.1f} {'CPU ' if results.clock != 'seconds' else ''}s"] if shared else []
    note = (
        "Seconds are of training alone, means over seeds; time and memory never come out the same twice. What else "
        "runs on the machine adds to the seconds and takes from the targets/s, but changes the CPU seconds little."
    )
    return Table(titled("what it took", setting), columns, rows, marked, note)


def shared_seconds(results: Results, setting: Setting) -> float | None:
    """The time that the quickest cell took: what all arms can be compared at."""
    known = [
        each.cost(results.clock) for arm in results.arms for each in results.of(arm, setting) if each.status == "done"
    ]
    return min((value for value in known if value is not None), default=None)


def _at(results: Results, arm: str, setting: Setting, seconds: float | None) -> list[str]:
    """The loss after as many seconds as the quickest cell had: between two validations, along the line."""
    if seconds is None:
        return []
    found = (loss_at(each, seconds, results.clock) for each in results.of(arm, setting))
    values = [value for value in found if value is not None]
    return [plus_minus(mean(values)) if values else ""]


def loss_at(outcome: Outcome, seconds: float, clock: str) -> float | None:
    """A cell's validation loss after some seconds of training; None before its first validation."""
    trained = outcome.step(TRAINED)
    losses = dict(map(tuple, trained.get("curves", {}).get("val/loss", [])))
    points = [(time, losses[step]) for step, time in trained.get("cost", {}).get(f"{clock}_at", [])
              if losses.get(step) is not None]  # fmt: skip
    for (before, first), (after, second) in zip(points, points[1:], strict=False):
        if before <= seconds <= after:
            share = (seconds - before) / (after - before) if after > before else 1.0
            return float(first + share * (second - first))
    return float(points[-1][1]) if points and seconds >= points[-1][0] else None


def arms(results: Results) -> Table:
    """What each arm changes of the recipe."""
    rows = [[arm, ", ".join(_flat(results.study["arms"][arm]))] for arm in results.arms]
    classes = {i: ["text", "text wrap"] for i in range(len(rows))}
    return Table("what the arms are", ["arm", "what it changes"], rows, None, "", classes)


def _flat(level: Any, key: str = "") -> Iterator[str]:
    if isinstance(level, dict):
        for name, value in level.items():
            here = key if name == "class_path" else f"{key}.{name}" if key else str(name)
            yield from _flat(value, here.removesuffix(".init_args"))
    else:
        yield f"{key}: {level}"


def _apart(mine: float, base: float | None) -> str:
    share = mine / base - 1 if base else 0.0
    return f" ({share:+.1%})" if abs(share) >= 5e-4 else ""


def claims(results: Results) -> Table | None:
    """What was expected, and what became of it."""
    rows: list[list[str]] = []
    classes: dict[int, list[str]] = {}
    said = len(results.settings) > 1  # else there is nothing to say of it
    for claim in results.claims:
        for setting in results.settings:
            if not claim.about(setting) or not all(results.of(arm, setting) for arm in claim.arms):
                continue
            verdict = claim.verdict(results, setting)
            kind = {"holds": "holds", "does not hold": "fails"}.get(verdict.outcome, "open")
            where, where_class = ([setting_name(setting)], ["text"]) if said else ([], [])
            classes[len(rows)] = ["text wrap", *where_class, f"text {kind}", "text wrap", "text wrap"]
            rows.append([claim.text, *where, verdict.outcome, verdict.numbers, claim.source])
    if not rows:
        return None
    note = (
        f"'cannot be told': the {CONFIDENCE:.0%} interval lies on both sides of what is claimed, or there is one seed."
    )
    columns = ["claim", *(["setting"] if said else []), "found", "numbers", "source"]
    return Table("what was expected", columns, rows, None, note, classes)


def troubles(results: Results) -> Table | None:
    """The cells and steps that did not end as they should: missing, failed, diverged, refused."""
    rows = []
    for outcome in results.outcomes:
        if outcome.status not in ("done", "diverged") or "failure" in outcome.results:
            rows.append([outcome.name, "", outcome.status, outcome.results.get("failure", "")])
            continue
        for step in results.steps():
            found = outcome.step(step)
            if found and found["outcome"] != "done":
                rows.append([outcome.name, step, found["outcome"], found.get("why", "")])
    classes = {i: ["text", "text", "text", "text wrap"] for i in range(len(rows))}
    return (
        Table("what did not end as the rest", ["cell", "step", "outcome", "why"], rows, None, "", classes)
        if rows
        else None
    )


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


__all__ = ["Table", "arms", "claims", "compared", "cost", "curves_csv", "plus_minus", "results_csv", "troubles"]
