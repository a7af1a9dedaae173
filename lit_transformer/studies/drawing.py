"""The numbers of figures, from results; and what pictures call settings and facts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_transformer.studies.parts import TRAINED, Measure, Number

if TYPE_CHECKING:
    from lit_transformer.studies.results import Results, Setting

FACTS = {
    "parameters": "parameters",
    "tokens": "tokens of training",
    "flops": "FLOPs a token, forward and backward",
    "compute": "FLOPs of the whole training",
    "seconds": "seconds of training",
}
"""What is known of a cell before training, or what it cost, in words."""


SPLITS = {"val": "validation", "test": "test", "train": "training"}


def metric_words(metric: str) -> str:
    """A metric in words: ``val/loss`` is validation loss."""
    split, slash, name = metric.partition("/")
    return (f"{SPLITS[split]} {name}" if slash and split in SPLITS else metric).replace("_", " ")


def measure_words(measure: Measure) -> str:
    """A measure in words, with the steps whose numbers they are."""
    words = [
        metric_words(number.metric)
        + ("" if number.step in (TRAINED, metric_words(number.metric)) else f" of {number.step}")
        for number in measure.numbers
    ]
    return f" {measure.operation} ".join(words)


def step_values(
    results: "Results", arm: str, setting: "Setting", steps: Sequence[str], metric: str
) -> dict[str, dict[int, float]]:
    """A metric of an arm by step and seed, where there are numbers."""
    found: dict[str, dict[int, float]] = {step: {} for step in steps}
    for outcome in results.of(arm, setting):
        for step in steps:
            value = outcome.number(Number(step, metric))
            if value is not None:
                found[step][outcome.seed] = value
    return found


def series_values(results: "Results", arm: str, setting: "Setting", step: str, name: str) -> dict[float, list[float]]:
    """The values of all seeds of a series that a step measured, by place."""
    at: dict[float, list[float]] = {}
    for outcome in results.of(arm, setting):
        for metric, value in outcome.step(step).get("metrics", {}).items():
            series, _, place = metric.rpartition("/")
            if series == name and value is not None:
                at.setdefault(float(place), []).append(float(value))
    return at


def curve_values(results: "Results", arm: str, setting: "Setting", step: str, metric: str) -> dict[float, list[float]]:
    """The values of all seeds of a metric during training, by optimizer step."""
    at: dict[float, list[float]] = {}
    for outcome in results.of(arm, setting):
        for place, value in outcome.step(step).get("curves", {}).get(metric, []):
            if value is not None:
                at.setdefault(float(place), []).append(float(value))
    return at


def fact_of(results: "Results", arm: str, setting: "Setting", fact: str) -> float | None:
    """What is known of an arm's cells under a setting before training, or what they cost on average."""
    cells = results.of(arm, setting)
    if not cells:
        return None
    if fact == "seconds":
        ended = [each for each in cells if each.status == "done"] or cells  # what died early cost less
        seconds = [cost for each in ended if (cost := each.cost(results.clock)) is not None]
        return math.fsum(seconds) / len(seconds) if seconds else None
    facts = results.study["facts"].get(cells[0].group)
    if facts is None:
        return None
    return float(facts["flops"] * facts["tokens"] if fact == "compute" else facts[fact])


def setting_name(setting: "Setting") -> str:
    """A setting in words, empty where there is none."""
    return ", ".join(f"{factor} {level}" for factor, level in setting)


def titled(title: str, setting: "Setting") -> str:
    """The title with the setting behind it."""
    name = setting_name(setting)
    return f"{title} ({name})" if name else title
