"""One cell, in a process of its own: trained, evaluated, its results written step by step."""

import fcntl
import json
import math
import os
import shutil
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lit_transformer.checkpoints.finding import find_newest
from lit_transformer.errors import EnvironmentFault, LitTransformerError, Preempted, UserError
from lit_transformer.recipe.tree import Mapping, plain
from lit_transformer.studies.cells import Cell, Plan
from lit_transformer.studies.parts import TRAINED, Step
from lit_transformer.studies.program import Program

DONE, REFUSED, DIVERGED, FAILED = "done", "refused", "diverged", "failed"
"""How a step ended. A refusal (a table of positions that ends) and a divergence are results; a failure is not."""


ELSEWHERE = 74
"""Exit code of a cell's process that found another at work on it."""


class Folder:
    """The folder of a study: ``cells/`` (run folders), ``recipes/``, ``results/``, ``logs/``, ``report/``.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def make(self) -> None:
        """Makes it.

        Raises:
            EnvironmentFault: It cannot be made.
        """
        try:
            for name in ("cells", "recipes", "results", "logs"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def run(self, cell: Cell, step: str = TRAINED) -> Path:
        """The run folder of a cell, or of a further training."""
        return self.path / "cells" / (cell.name if step == TRAINED else f"{cell.name},then={step}")

    def recipe(self, cell: Cell, step: str = TRAINED) -> Path:
        """The recipe of a step of a cell."""
        return self.path / "recipes" / f"{cell.name},{step}.yaml"

    def result(self, cell: Cell) -> Path:
        """The results of a cell."""
        return self.path / "results" / f"{cell.name}.json"

    def log(self, cell: Cell) -> Path:
        """What a cell's process says."""
        return self.path / "logs" / f"{cell.name}.log"

    def read(self, cell: Cell) -> dict[str, Any]:
        """The results of a cell so far; empty where there are none."""
        return read_results(self.result(cell))

    @contextmanager
    def locked(self, cell: Cell) -> Iterator[bool]:
        """Whether nobody else works on the cell; the lock goes with the process that holds it."""
        with open(self.path / "logs" / f"{cell.name}.lock", "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True


def read_results(path: Path) -> dict[str, Any]:
    """What a cell has written; empty where nothing.

    Raises:
        UserError: The file is another one, or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no results file ({error}); delete it and start the study again") from error
    steps = found.get("steps", {}) if isinstance(found, dict) else None
    whole = isinstance(steps, dict) and all(
        isinstance(s, dict) and {"outcome", "of"} <= s.keys() for s in steps.values()
    )
    if not whole or (steps and "versions" not in found):
        raise UserError(f"{path}: is no results file; delete it and start the study again")
    return dict(found)


def write_whole(path: Path, text: str) -> None:
    """Writes a file, whole or not at all.

    Raises:
        EnvironmentFault: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from error


def settled(plan: Plan, cell: Cell, results: dict[str, Any]) -> bool:
    """Whether nothing is left to do for a cell."""
    steps = results.get("steps", {})
    if steps.get(TRAINED, {}).get("outcome") not in (DONE, DIVERGED):
        return False
    if steps[TRAINED]["outcome"] == DIVERGED:
        return True
    for step in plan.steps(cell):
        known = steps.get(step.name, {})
        if known.get("outcome") not in (DONE, REFUSED, DIVERGED) or known["of"] != plan.fingerprint(cell, step):
            return False
    return True


def check_same(plan: Plan, cell: Cell, results: dict[str, Any], folder: Folder) -> None:
    """Refuses to mix runs of two studies in one folder.

    Raises:
        UserError: The cell was trained by another recipe.
    """
    known = results.get("steps", {}).get(TRAINED, {})
    if known.get("outcome") in (DONE, DIVERGED) and known["of"] != plan.fingerprint(cell):
        raise UserError(
            f"{folder.result(cell)}: {cell.name} was trained by another recipe than the study's now; "
            "name another --output, or delete this file"
        )
    run = folder.run(cell)
    if not known and results.get("begun") not in (None, plan.fingerprint(cell)) and _newest(run) is not None:
        raise UserError(
            f"{run}: was begun by another recipe than the study's now; name another --output, or delete this folder"
        )


class Worker:
    """Does what is left to do for a cell.

    Args:
        plan: The study's cells.
        folder: Where it writes.
        program: The verbs.
    """

    def __init__(self, plan: Plan, folder: Folder, program: Program) -> None:
        self.plan = plan
        self.folder = folder
        self.program = program
        self.before = 0.0
        """Seconds that earlier processes computed for the cell."""

    def run(self, cell: Cell, facts: dict[str, Any]) -> None:
        """Trains the cell where that is not done, then does its steps; the results are written after each.

        Raises:
            LitTransformerError: What stopped it; ``Preempted`` where it was told to.
        """
        known = self.folder.read(cell)
        check_same(self.plan, cell, known, self.folder)
        self.before = known.get("processor_seconds", 0.0)
        results = self._begun(cell, known, facts)
        steps: dict[str, Any] = results["steps"]
        mark = self.plan.fingerprint(cell)
        if steps.get(TRAINED, {}).get("outcome") not in (DONE, DIVERGED):
            results["begun"] = mark
            self._write(cell, results)
            steps[TRAINED] = self._fitted(cell, TRAINED, self.plan.recipe(cell), None) | {"of": mark}
            results["recipe"] = _text(self.folder.run(cell) / "recipe.yaml")
            self._write(cell, results)
        for step in self.plan.steps(cell) if steps[TRAINED]["outcome"] == DONE else ():
            mark = self.plan.fingerprint(cell, step)
            known = steps.get(step.name, {})
            if known.get("outcome") in (DONE, REFUSED, DIVERGED) and known["of"] == mark:
                continue
            steps[step.name] = self._done(cell, step, steps) | {"of": mark}
            self._write(cell, results)

    def failed(self, cell: Cell, facts: dict[str, Any], why: str) -> None:
        """Notes why a cell could not be finished; the next try forgets it."""
        self._write(cell, {**self._begun(cell, self.folder.read(cell), facts), "failure": why})

    def _begun(self, cell: Cell, known: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "cell": cell.name,
            "arm": cell.arm,
            "setting": dict(cell.setting),
            "seed": cell.seed,
            "facts": facts,
            "versions": known.get("versions") or self.program.versions(),
            "recipe": known.get("recipe", ""),
            "begun": known.get("begun"),
            "steps": known.get("steps", {}),
        }

    def _write(self, cell: Cell, results: dict[str, Any]) -> None:
        results["processor_seconds"] = self.before + time.process_time()
        write_whole(self.folder.result(cell), json.dumps(results, indent=1, sort_keys=True) + "\n")

    def _done(self, cell: Cell, step: Step, steps: dict[str, Any]) -> dict[str, Any]:
        """The outcome of one step."""
        before = steps[step.of]
        if before["outcome"] != DONE:
            return {"outcome": before["outcome"], "why": f"{step.of}: {before.get('why', '')}"}
        checkpoint = self.folder.run(cell, step.of) / "checkpoints" / f"{step.checkpoint}.ckpt"
        tree = self.plan.step_recipe(cell, step)
        if step.verb == "fit":
            return self._fitted(cell, step.name, tree, checkpoint)
        recipe = self._written(cell, step.name, tree)
        try:
            if step.probe is not None:
                metrics = self.program.probe(step.probe, recipe, checkpoint)
            else:
                metrics = self.program.evaluate(step.verb, recipe, checkpoint)
        except UserError as error:
            return {"outcome": REFUSED, "why": _shortened(error, recipe)}
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        return {"outcome": DONE, "metrics": known}

    def _fitted(self, cell: Cell, step: str, tree: Mapping, start: Path | None) -> dict[str, Any]:
        recipe, run = self._written(cell, step, tree), self.folder.run(cell, step)
        if run.is_dir() and _newest(run) is None:
            shutil.rmtree(run)  # killed before its first checkpoint
        try:
            self.program.fit(recipe, run, start)
        except UserError:
            raise
        except LitTransformerError as error:
            if error.exit_code != 4:
                raise
            return {"outcome": DIVERGED, "why": _shortened(error, recipe), **_history(run)}
        return {"outcome": DONE, **_history(run)}

    def _written(self, cell: Cell, step: str, tree: Mapping) -> Path:
        path = self.folder.recipe(cell, step)
        text = yaml.safe_dump(plain(tree), sort_keys=False, allow_unicode=True, width=120)
        write_whole(path, f"# {cell.name}: {step}\n{text}")
        return path


def work(worker: Worker, cell: Cell, facts: dict[str, Any]) -> int:
    """Runs a cell and says how it ended as an exit code; what went wrong stands in its log and in its results."""
    with worker.folder.locked(cell) as free:
        if not free:
            print(f"{cell.name}: another process works on it")
            return ELSEWHERE
        try:
            worker.run(cell, facts)
        except Preempted as error:
            print(error)
            return error.exit_code
        except LitTransformerError as error:
            print(f"lit-transformer: {error}")
            worker.failed(cell, facts, str(error))
            return error.exit_code
        except BaseException as error:
            traceback.print_exc()
            worker.failed(cell, facts, f"{type(error).__name__}: {error}")
            return 1
        return 0


def _newest(run: Path) -> Path | None:
    try:
        found = find_newest(run)
    except UserError:  # none of them verifies
        return None
    return None if found is None else found.path


def _history(run: Path) -> dict[str, Any]:
    """What the run wrote of itself."""
    try:
        found: dict[str, Any] = json.loads((run / "history.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"metrics": {}, "curves": {}, "cost": {}}
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _shortened(error: Exception, recipe: Path) -> str:
    """The message without the path of the recipe, which says nothing to whoever reads the report."""
    return str(error).replace(f"{recipe}:", "line ").replace(str(recipe), recipe.name)
