"""The tables of a report, as names of columns and rows of text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_transformer.analysis.means import CONFIDENCE, shown
from lit_transformer.studies.drawing import setting_name, titled
from lit_transformer.studies.parts import TRAINED, Measure
from lit_transformer.studies.results import Results, Setting
from lit_transformer.studies.statistics import Difference


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


def having(results: Results, measure: Measure) -> list[str]:
    """The arms that have all steps of a measure."""
    limits = {step["name"]: step["arms"] for step in results.study["steps"]}
    return [arm for arm in results.arms if all(not (only := limits.get(name)) or arm in only for name in measure.steps)]


def split_measures(results: Results) -> tuple[list[Measure], dict[str, list[Measure]], list[Measure]]:
    """The measures that arms are compared by, those that one arm alone has (by arm), and those without any number."""
    several: list[Measure] = []
    single: dict[str, list[Measure]] = {}
    nothing: list[Measure] = []
    for measure in results.measures:
        arms = [arm for arm in having(results, measure)
                if any(results.values(arm, setting, measure) for setting in results.settings)]  # fmt: skip
        if not arms:
            nothing.append(measure)
        elif len(arms) == 1 and len(having(results, measure)) == 1:
            single.setdefault(arms[0], []).append(measure)
        else:
            several.append(measure)
    return several, single, nothing


def overview(results: Results, setting: Setting, measures: Sequence[Measure]) -> Table:
    """The means of all measures, a row for each arm."""
    rows: list[list[str]] = []
    baseline, marked = results.baseline(setting), None
    for arm in (arm for arm in results.arms if results.of(arm, setting)):
        marked = len(rows) if arm == baseline else marked
        row = [arm]
        for measure in measures:
            found = results.mean(arm, setting, measure)
            text = results.why(arm, setting, measure) if found is None else found.rounded
            lost = list(results.lost(arm, setting, measure).values()) if found is not None else []
            seeds = len(results.of(arm, setting))
            row.append(" ".join([text, *(f"({lost.count(why)} of {seeds} {why})" for why in dict.fromkeys(lost))]))
        rows.append(row)
    kept = [0, *(i + 1 for i in range(len(measures)) if any(_is_number(row[i + 1]) for row in rows))]
    columns = ["arm", *(measure.name for measure in measures)]
    rows = [[row[i] for i in kept] for row in rows]
    return Table(titled("means", setting), [columns[i] for i in kept], rows, marked)


def alone(results: Results, arm: str, measures: Sequence[Measure]) -> Table:
    """Measures that one arm alone has: a column for each setting."""
    settings = [s for s in results.settings if any(results.values(arm, s, measure) for measure in measures)]
    rows = []
    for measure in measures:
        found = [results.mean(arm, setting, measure) for setting in settings]
        rows.append([measure.name, str(measure), *("" if each is None else each.rounded for each in found)])
    columns = ["measure", "what it is", *(setting_name(setting) or "mean" for setting in settings)]
    classes = {i: ["text", "text", *[""] * len(settings)] for i in range(len(rows))}
    return Table(f"{arm} alone", columns, rows, None, "", classes)


def compared(results: Results, setting: Setting, measure: Measure) -> Table | None:
    """The arms by one measure: means, differences from the baseline, paired tests; None where there is no number.

    Arms that do not have its steps are left out; those that have them and no number say why.
    """
    baseline = results.baseline(setting)
    differences = results.differences(setting, measure)
    rows, marked, partly = [], None, False
    for arm in having(results, measure):
        if not results.of(arm, setting):
            continue
        found = results.mean(arm, setting, measure)
        if found is None:
            why = results.why(arm, setting, measure)
            rows += [[arm, "0", why, "", "", "", ""]] if why else []
            continue
        if arm == baseline:
            marked = len(rows)
        cells = _difference(differences[arm]) if arm in differences else ["", "", ""]
        spread = "" if math.isnan(found.deviation) else shown(found.deviation, 2)
        lost = len(results.lost(arm, setting, measure))
        count = f"{found.count} of {len(results.of(arm, setting))}" if lost else str(found.count)
        partly = partly or bool(lost)
        rows.append([arm, count, str(found), spread, *cells])
    if all(row[1] == "0" for row in rows):
        return None
    columns = ["arm", "seeds", "mean", "sd", f"less {baseline}", "p", "p (Holm)"]
    # Of one seed there is no deviation and no test; without the baseline's number no difference.
    empty = {i for i in (3, 4, 5, 6) if not any(row[i] for row in rows)}
    kept = [i for i in range(len(columns)) if i not in empty]
    title = titled(f"{measure.name}: {measure}", setting)
    note = (
        "Where seeds diverged or are not finite, the mean is of the others and flatters the arm; no test is made of it."
        if partly
        else ""
    )
    return Table(title, [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], marked, note)


def _is_number(text: str) -> bool:
    return bool(text) and (text[0].isdigit() or text[0] == "-")


def _difference(found: Difference) -> list[str]:
    half = "" if math.isnan(found.mean.half) else f" ± {shown(found.mean.half, 2)}"
    return [shown(found.mean.value, 4, "+") + half, _p(found.p), _p(found.adjusted)]


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def glossary(results: Results) -> list[Table]:
    """What the measures and the steps are, as the study says it and in its own words."""
    notes = results.study.get("notes", {})
    said = any(measure.name in notes for measure in results.measures)
    rows = [[m.name, str(m), *([notes.get(m.name, "")] if said else [])] for m in results.measures]
    found = [_words("measures", ["measure", "what it is", *(["in words"] if said else [])], rows)]
    notes = {name: text for name, text in notes.items() if name not in results.study["measures"]}  # said above
    steps = [["fit", "the training of the cell", notes.get("fit", "")]]
    steps += [[step["name"], _step_words(step), notes.get(step["name"], "")] for step in results.study["steps"]]
    said = any(row[2] for row in steps)
    columns = ["step", "what is done", *(["in words"] if said else [])]
    return [*found, _words("steps", columns, [row[: len(columns)] for row in steps])]


def _words(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    classes = {i: ["text", *["text wrap"] * (len(columns) - 1)] for i in range(len(rows))}
    return Table(title, columns, rows, None, "", classes)


def _step_words(step: dict[str, Any]) -> str:
    """What a step does, from the study."""
    kind = {"fit": "trains on", "test": "the test split", "validate": "the validation split"}
    probe = step.get("probe") or {}
    words = [str(probe.get("class_path", "")).rpartition(".")[2] if probe else kind.get(step["verb"], step["verb"])]
    words += [f"{key} {value}" for key, value in probe.get("init_args", {}).items()]
    words += [f"of {step['of']}"] if step["of"] != TRAINED else []
    words += [f"{key} x {factor:g}" for key, factor in step["times"].items()]
    words += [*step["overlays"], *_flat(step.get("changes", {}))]
    words += [f"arms: {', '.join(step['arms'])}"] if step["arms"] else []
    return "; ".join(words)


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
            text = f"{claim.text} (note: {claim.note})" if claim.note else claim.text
            rows.append([text, *where, verdict.outcome, verdict.numbers, claim.source])
    if not rows:
        return None
    note = (
        f"'cannot be told': the {CONFIDENCE:.0%} interval lies on both sides of what is claimed, there is one seed, or "
        "some of the seeds diverged."
    )
    if len(results.study["seeds"]) > 1:
        note += (
            " Each claim is judged by itself: of twenty that hold, one may by chance; the p (Holm) of the tables is "
            "corrected for all arms."
        )
    columns = ["claim", *(["setting"] if said else []), "found", "numbers", "source"]
    return Table("what was expected", columns, rows, None, note, classes)


def troubles(results: Results) -> Table | None:
    """The cells and steps that did not end as they should: missing, failed, diverged, refused, not finite."""
    rows = []
    for outcome in results.outcomes:
        if outcome.status not in ("done", "diverged") or "failure" in outcome.results:
            rows.append([outcome.name, "", outcome.status, outcome.results.get("failure", "")])
            continue
        for step in results.steps():
            found = outcome.step(step)
            if found and found["outcome"] != "done":
                rows.append([outcome.name, step, found["outcome"], found.get("why", "")])
            elif infinite := [name for name, value in found.get("metrics", {}).items() if value is None]:
                rows.append([outcome.name, step, "not finite", ", ".join(infinite)])
    classes = {i: ["text", "text", "text", "text wrap"] for i in range(len(rows))}
    return (
        Table("what did not end as the rest", ["cell", "step", "outcome", "why"], rows, None, "", classes)
        if rows
        else None
    )
