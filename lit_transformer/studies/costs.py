"""What arms are and what they took, beside the baseline."""

import math

from lit_transformer.analysis.means import mean, shown
from lit_transformer.studies.drawing import fact_of, titled
from lit_transformer.studies.parts import TRAINED
from lit_transformer.studies.results import Outcome, Results, Setting
from lit_transformer.studies.tables import Table


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
        for fact in ("parameters", "flops", "tokens"):
            mine, base = fact_of(results, arm, setting, fact), fact_of(results, baseline, setting, fact)
            row.append("" if mine is None else shown(mine) + _apart(mine, base))
        targets = _targets(results, arm, setting)
        row.append("" if targets is None else shown(targets) + _apart(targets, _targets(results, baseline, setting)))
        for name, style, scale in (
            ("seconds", ",.1f", 1.0),
            ("processor_seconds", ",.1f", 1.0),
            ("tokens_per_second", ",.0f", 1.0),
            ("memory", ",.0f", 1e6),
        ):
            ended = [each for each in cells if each.status == "done"] or cells  # what died early cost less
            known = [value for each in ended if (value := each.cost(name)) is not None]
            row.append(f"{math.fsum(known) / len(known) / scale:{style}}" if known else "")
        rows.append([*row, *_at(results, arm, setting, shared)])
    columns = [
        "arm",
        "parameters",
        "FLOPs a token",
        "tokens",
        "targets",
        "seconds",
        "CPU seconds",
        "targets/s",
        "peak memory (MB)",
    ]
    columns += [f"val/loss after {shared:,.1f} {'CPU ' if results.clock != 'seconds' else ''}s"] if shared else []
    note = (
        "Seconds are of training alone, means over seeds; time and memory never come out the same twice. What else "
        "runs on the machine adds to the seconds and takes from the targets/s, but changes the CPU seconds little. "
        "In brackets: the difference from the baseline. Tokens are those of all batches, padding included; targets "
        "are what a loss was taken of, means over seeds."
    )
    if shared:
        note += (
            " The loss after the seconds of the quickest cell is read off the line between two validations, where "
            "longer runs stand in the middle of their schedule of rates; no test of it was made."
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
    done = (each for each in results.of(arm, setting) if each.status == "done")
    found = (loss_at(each, seconds, results.clock) for each in done)
    values = [value for value in found if value is not None]
    return [str(mean(values)) if values else ""]


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


def _targets(results: Results, arm: str, setting: Setting) -> float | None:
    """How many targets an arm was trained on, on average of the seeds that ended."""
    known = [float(targets) for each in results.of(arm, setting) if each.status == "done"
             if (targets := each.step(TRAINED).get("targets")) is not None]  # fmt: skip
    return float(round(math.fsum(known) / len(known))) if known else None


def _apart(mine: float, base: float | None) -> str:
    share = mine / base - 1 if base else 0.0
    return f" ({share:+.1%})" if abs(share) >= 5e-4 else ""
