"""Whether what arms are compared by is measured at all: one wrong letter must not cost a study."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lit_transformer.recipe.suggest import hint
from lit_transformer.studies.parts import TRAINED, Measure, Number, Probe, Step

SPLITS = {"fit": ("train/", "val/"), "validate": ("val/",), "test": ("test/",)}
"""What the metrics of a verb begin with."""


def never_measured(number: Number, steps: Sequence[Step]) -> str:
    """Why a step cannot have such a metric, as far as that is known before anything is trained; empty where it can."""
    step = next((each for each in steps if each.name == number.step), None)
    verb = "fit" if step is None else step.verb
    if step is not None and step.probe is not None:
        names = step.probe.names
        if names and _series(number.metric) not in names and number.metric not in names:
            return f"{type(step.probe).__name__} measures no {number.metric!r}{hint(number.metric, names, 'metrics')}"
    elif verb in SPLITS and not number.metric.startswith(SPLITS[verb]):
        wanted = " or ".join(SPLITS[verb])
        return f"{number.step} ({verb}) measures no {number.metric!r}: its metrics begin with {wanted}"
    return ""


def not_measured(
    measures: Iterable[Measure], cells: Sequence[Mapping[str, Any]], probes: Mapping[str, Probe | None]
) -> str:
    """A measure that no cell has a number for although its step was done; empty where there is none.

    A point of a series that is there (``loss_at/64`` of ``loss_at``) may be missing, and so may what a probe says that
    it sometimes finds.

    Args:
        measures: The measures.
        cells: The results of the cells that are finished.
        probes: The probe of each step, by name.
    """
    for measure in measures:
        for number in measure.numbers:
            steps = [cell.get("steps", {}).get(number.step, {}) for cell in cells]
            found = [step.get("metrics", {}) for step in steps if step.get("outcome") == "done"]
            known = sorted({name for each in found for name in each})
            probe = probes.get(number.step)
            said = {*known, *map(_series, known), *(probe.names if probe is not None else ())}
            if found and not {number.metric, _series(number.metric)} & said:
                return (
                    f"measure {measure.name} ({measure}): {number.step} has no metric {number.metric!r}"
                    f"{hint(number.metric, known, 'metrics')}"
                )
    return ""


def probes_of(steps: Iterable[Step]) -> dict[str, Probe | None]:
    """The probe of each step, by name."""
    return {TRAINED: None, **{step.name: step.probe for step in steps}}


def _series(metric: str) -> str:
    """The name of the series that a metric is a point of; the metric where it is none."""
    series, _, place = metric.rpartition("/")
    return series if place.replace(".", "", 1).isdigit() else metric
