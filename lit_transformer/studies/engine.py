"""Running a study: the cells that are not done yet, several at a time, until all are or somebody says stop."""

import json
import os
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

from lit_transformer.errors import EXIT_DONE, EnvironmentFault, LitTransformerError, Preempted, UserError
from lit_transformer.studies.cells import Cell, Plan
from lit_transformer.studies.matching import check_match, table
from lit_transformer.studies.measured import not_measured, probes_of
from lit_transformer.studies.processes import STOPPING, ended, forked
from lit_transformer.studies.program import Facts, Program
from lit_transformer.studies.worker import (
    DIVERGED,
    ELSEWHERE,
    TRAINED,
    Folder,
    Worker,
    check_same,
    settled,
    work,
    write_whole,
)

Say = Callable[[str], None]


@dataclass
class _Running:
    cell: Cell
    slot: int
    since: float


class Engine:
    """Runs the cells of a study.

    Args:
        plan: The cells.
        folder: Where everything goes.
        program: The verbs.
        processes: Cells that are trained at a time.
        threads: CPU threads of each; the numbers depend on it, in their last digits.
        devices: Accelerators, as ``CUDA_VISIBLE_DEVICES`` has them, one for each process in turn.
        say: Takes lines of progress.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Folder,
        program: Program,
        processes: int = 1,
        threads: int = 1,
        devices: Sequence[str] = (),
        say: Say = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        if processes < 1 or threads < 1:
            raise UserError("--processes and --threads: must be at least 1")
        self.plan = plan
        self.folder = folder
        self.program = program
        self.processes = processes
        self.threads = threads
        self.devices = list(devices)
        self.say = say
        self.worker = Worker(plan, folder, program)
        self._stop: str | None = None
        self._mistake = ""
        """What no further training would put right."""
        self.elsewhere: list[Cell] = []
        """Cells that another process works on."""
        self._seconds: list[float] = []

    def run(self, only: int | None = None) -> list[Cell]:
        """Runs what is not done; gives the cells that failed.

        Args:
            only: Number of the only cell to run; left out: all.

        Raises:
            UserError: A cell cannot be run, or its arms cannot be matched: before anything is trained.
            Preempted: A signal stopped it; started again, it goes on.
        """
        self._check_folder()
        self.folder.make()
        cells = self._chosen(only)
        waiting = [cell for cell in cells if not self._settled(cell)]
        if waiting and (mistake := self._not_measured()):
            raise UserError(mistake)
        if done := len(cells) - len(waiting):
            self.say(f"{done} of {len(cells)} cells are done already")
        facts = self.inspect()
        self.say(table(self.plan, facts))
        check_match(self.plan, facts)
        self._write_study(facts)
        return self._train(waiting, len(cells), facts) if waiting else []

    def _check_folder(self) -> None:
        """Refuses the folder of another study."""
        path = self.folder.path / "study.json"
        said = _read(path)
        if said is not None and not (isinstance(said, dict) and "name" in said):
            raise UserError(f"{path}: is no study; name another --output, or delete this file")
        known = said and said["name"]
        if known not in (None, self.plan.study.name):
            raise UserError(f"{self.folder.path}: is the folder of the study {known}; name another --output")

    def inspect(self) -> dict[str, Facts]:
        """What each group of cells is, found out in a process of its own, which checks every recipe too.

        Raises:
            LitTransformerError: The first thing that is wrong.
        """
        self._check_folder()
        file = self.folder.path / "facts.json"
        marks = {cell.group: self._mark(cell) for cell in self.plan.groups}
        known = {name: each for name, each in _facts(file).items() if each["mark"] == marks.get(name)}
        new = [cell for cell in self.plan.groups if cell.group not in known]
        if new:
            known |= {name: {"mark": marks[name], "facts": each} for name, each in self._asked(new).items()}
            write_whole(file, json.dumps(known, indent=1, sort_keys=True) + "\n")
        return {cell.group: Facts(**known[cell.group]["facts"]) for cell in self.plan.groups}

    def _asked(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """What a process of its own says of these cells."""
        self.folder.make()
        # Tasks of a job array look at the same time, and processes of two hosts may have the same number.
        answer = self.folder.path / f"inspection.{uuid.uuid4().hex}.json"
        log = self.folder.path / "logs" / "inspection.log"
        code = ended(forked(lambda: self._inspected(cells, answer), log), wait=True)
        said = _read(answer) or {}
        answer.unlink(missing_ok=True)
        if "facts" not in said:
            error = {2: UserError, 3: EnvironmentFault}.get(code or 1, LitTransformerError)
            raise error(said.get("error") or f"the recipes could not be checked; {log} says why")
        found: dict[str, Any] = said["facts"]
        return found

    def _mark(self, cell: Cell) -> list[str]:
        steps = [self.plan.fingerprint(cell, step) for step in self.plan.steps(cell)]
        return [self.plan.fingerprint(cell), *steps]

    def _inspected(self, cells: Sequence[Cell], answer: Path) -> int:
        try:
            self.program.begin(self.threads)
            for cell in cells:
                for step in self.plan.steps(cell):
                    self.program.check(self.plan.step_recipe(cell, step))
            facts = {cell.group: self.program.inspect(self.plan.recipe(cell)).plain() for cell in cells}
        except LitTransformerError as error:
            write_whole(answer, json.dumps({"error": str(error)}))
            return error.exit_code
        write_whole(answer, json.dumps({"facts": facts}))
        return EXIT_DONE

    def _chosen(self, only: int | None) -> list[Cell]:
        if only is None:
            return self.plan.cells
        if not 0 <= only < len(self.plan.cells):
            raise UserError(f"--cell {only}: the study has the cells 0 to {len(self.plan.cells) - 1}")
        return [self.plan.cells[only]]

    def _settled(self, cell: Cell) -> bool:
        results = self.folder.read(cell)
        check_same(self.plan, cell, results, self.folder)
        return settled(self.plan, cell, results)

    def _write_study(self, facts: dict[str, Facts]) -> None:
        """What the report has to know beside the results."""
        from lit_transformer.studies.results import described

        write_whole(
            self.folder.path / "study.json",
            json.dumps(described(self.plan, facts), indent=1, sort_keys=True, ensure_ascii=False) + "\n",
        )

    def _train(self, cells: list[Cell], total: int, facts: dict[str, Facts]) -> list[Cell]:
        waiting, again = deque(cells), {cell.number: True for cell in cells}
        running: dict[int, _Running] = {}
        failed: list[Cell] = []
        left, told = len(cells), False
        self.elsewhere = []
        with self._signals():
            while waiting or running:
                while waiting and len(running) < self.processes and self._stop is None:
                    slot = min(set(range(self.processes)) - {each.slot for each in running.values()})
                    self._start(waiting.popleft(), slot, running, facts)
                if self._stop is not None:
                    if not running:
                        break
                    if not told:
                        told = True
                        self.say(f"{self._stop}: the cells under way save what they have")
                        for process in running:
                            os.kill(process, signal.SIGTERM)
                for process in list(running):
                    code = ended(process)
                    if code is None:
                        continue
                    each = running.pop(process)
                    if self._stop is not None and code != 0:
                        continue
                    if code == 0:
                        left -= 1
                        self._seconds.append(time.monotonic() - each.since)
                        self._report(each, total - left, total, left)
                        if left and (mistake := self._not_measured(each.cell)):
                            self._mistake = self._stop = mistake
                    elif code == ELSEWHERE:
                        left -= 1
                        self.elsewhere.append(each.cell)
                        self.say(f"{each.cell.name}: in work elsewhere")
                    elif again.pop(each.cell.number, False) and code not in (2, 75):
                        self.say(f"{each.cell.name}: failed ({_reason(code, self._log_end(each.cell))}); once more")
                        waiting.append(each.cell)
                    else:
                        left -= 1
                        failed.append(each.cell)
                        self.say(f"{each.cell.name}: FAILED ({_reason(code, self._log_end(each.cell))}); "
                                 f"{self.folder.log(each.cell)}")  # fmt: skip
                time.sleep(0.05)
        if self._mistake:
            raise UserError(f"{self._mistake}; put it right and start again: what is trained is kept")
        if self._stop is not None:
            raise Preempted(f"stopped by {self._stop}; {total - left} of {total} cells are done, start again to go on")
        return failed

    def _start(self, cell: Cell, slot: int, running: dict[int, _Running], facts: dict[str, Facts]) -> None:
        device = self.devices[slot % len(self.devices)] if self.devices else None

        def task() -> int:
            self.program.begin(self.threads)
            return work(self.worker, cell, facts[cell.group].plain())

        running[forked(task, self.folder.log(cell), device)] = _Running(cell, slot, time.monotonic())

    def _report(self, each: _Running, done: int, total: int, left: int) -> None:
        steps = self.folder.read(each.cell).get("steps", {})
        trained = steps.get(TRAINED, {})
        losses = [f"{name} {value:.4g}" for name, value in trained.get("metrics", {}).items()
                  if name in ("val/loss", "val/accuracy") and value is not None]  # fmt: skip
        said = "diverged" if trained.get("outcome") == DIVERGED else ", ".join(losses)
        refused = sum(step["outcome"] == "refused" for step in steps.values())
        said += f", {refused} refused" if refused else ""
        mean = sum(self._seconds) / len(self._seconds)
        rest = f"about {_clock(mean * left / min(self.processes, left))} left" if left else "all done"
        self.say(f"[{done}/{total}] {each.cell.name}: {said}; {_clock(time.monotonic() - each.since)}; {rest}")

    def _not_measured(self, newest: Cell | None = None) -> str:
        """A measure that none of the finished cells has a number for; empty where the newest has all."""
        study = self.plan.study
        if newest and not not_measured(study.compared, [self.folder.read(newest)], probes_of(study.steps)):
            return ""
        done = [results for cell in self.plan.cells if settled(self.plan, cell, results := self.folder.read(cell))]
        return not_measured(study.compared, done, probes_of(study.steps))

    def _log_end(self, cell: Cell) -> str:
        try:
            lines = self.folder.log(cell).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals stop the cells at their next step, with a checkpoint; they are handed on once."""

        def note(number: int, frame: FrameType | None) -> None:
            self._stop = signal.Signals(number).name

        before = {number: signal.signal(number, note) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _reason(code: int, line: str) -> str:
    ending = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{ending}: {line.removeprefix('lit-transformer: ')}" if line and code >= 0 else ending


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _facts(path: Path) -> dict[str, Any]:
    """What was found out before; what an earlier version wrote, or is not as it should be, is found out again."""
    found = _read(path)
    names = {field.name for field in fields(Facts)}
    whole = found.items() if isinstance(found, dict) else ()
    return {name: each for name, each in whole
            if isinstance(each, dict) and "mark" in each and set(each.get("facts", ())) == names}  # fmt: skip
