"""Verbs that train nothing: what a cell comes to is read off its recipe, so that the engine is tested in no time."""

import json
import os
import re
import signal
import time
from pathlib import Path

from lit_transformer.errors import Diverged, UserError
from lit_transformer.recipe import read_recipe
from lit_transformer.recipe.tree import Mapping, plain
from lit_transformer.studies.parts import Probe
from lit_transformer.studies.program import Facts


def without_costs(text: str) -> str:
    """A page or a summary without its tables of time and memory, which never come out the same twice."""
    found = re.subn(r"<section id=\"cost\">.*?</section>|## what it took.*?(?=\n## |\Z)", "", text, flags=re.DOTALL)
    assert found[1]
    return found[0]


class Fake:
    """Loss is 2 + rate + seed / 100 (the rate is what arms differ in); a rate above 10 diverges.

    Args:
        die: Name of a cell whose process is killed at its first try.
        seconds: How long a training takes.
    """

    def __init__(self, die: str = "", seconds: float = 0.0) -> None:
        self.die, self.seconds = die, seconds

    def begin(self, threads: int) -> None:
        pass

    def check(self, recipe: Mapping) -> None:
        model = recipe.items["model"]
        if isinstance(model, Mapping) and "typo" in model.items:
            raise model.marks["typo"].error("unknown key", "model.typo")

    def inspect(self, recipe: Mapping) -> Facts:
        self.check(recipe)
        said = plain(recipe)
        return Facts(said["model"].get("parameters", 1000), said["trainer"]["max_steps"] * 10, 6000.0)

    def fit(self, recipe: Path, folder: Path, start: Path | None) -> None:
        said = plain(read_recipe(recipe))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(recipe.read_text())
        marker = folder.parent / f".{folder.name}.tried"
        if self.die and folder.name.startswith(self.die) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        rate, seed = said["model"]["lr"], said["seed_everything"]
        loss = 2 + rate + seed / 100
        curve = [[1, loss + 1], [2, loss if rate <= 10 else None]]
        cost = {"seconds": time.time() % 7, "tokens_per_second": 1.0, "memory": 1, "seconds_at": [[1, 0.1], [2, 0.2]]}
        cost |= {"processor_seconds": 0.2, "processor_seconds_at": [[1, 0.1], [2, 0.2]]}
        history = {"metrics": {"val/loss": curve[-1][1]}, "curves": {"val/loss": curve}, "cost": cost, "steps": 2}
        (folder / "history.json").write_text(json.dumps(history))
        if rate > 10:
            raise Diverged("the loss is not finite")

    def evaluate(self, verb: str, recipe: Path, checkpoint: Path) -> dict[str, float]:
        said = plain(read_recipe(recipe))
        if said["data"]["block_size"] > 64:
            raise UserError("the table ends")
        return {"val/loss": 2 + said["model"]["lr"] * said["data"]["block_size"] / 32}

    def probe(self, probe: Probe, recipe: Path, checkpoint: Path) -> dict[str, float]:
        return {"at/1": 1.0, "at/2": 0.5, "at/10": 0.25}

    def versions(self) -> dict[str, str]:
        return {"fake": "1"}


STUDY = """\
study:
  question: Which <rate> is best?
  recipe: base.yaml
  baseline: low
  seeds: [1, 2, 3]
  arms:
    low: {model.lr: 0.1}
    same: {model.lr: 0.1}
    high: {model.lr: 1.0}
    wild: {model.lr: 100.0}
  grid: {trainer.max_steps: [2, 4]}
  left_out: [{arm: wild, max_steps: "4"}]
  steps:
    - {name: long, times: {data.block_size: 2}}
    - {name: longer, arms: [low], times: {data.block_size: 4}}
    - {name: tuned, verb: fit, arms: [high], model.lr: 0.2}
    - {name: after, arms: [high], of: tuned}
    - {name: seen, verb: probe, arms: [low], probe: PositionLossProbe}
  measures: {loss: fit val/loss, growth: long val/loss - fit val/loss}
  claims:
    - {class_path: Below, text: low beats high, arm: low, than: [high], measure: loss}
    - {class_path: Below, text: low beats same, arm: low, than: [same], measure: loss}
    - {class_path: AtMost, text: loss is small, arm: low, measure: loss, value: 2.5}
    - {class_path: AtLeast, text: loss is large, arm: low, measure: loss, value: 2.5}
    - {class_path: Refused, text: the table ends, arm: low, step: longer}
  figures:
    - Intervals
    - {class_path: Steps, steps: [fit, long], relative: true, metric: val/loss}
    - Curves
    - {class_path: Series, step: seen, name: at}
    - Heat
    - {class_path: Against, fact: compute}
"""
BASE = "model: {lr: 1.0}\ndata: {block_size: 32}\ntrainer: {max_steps: 2}\n"
