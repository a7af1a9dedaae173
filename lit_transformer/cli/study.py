"""``lit-transformer study``: a grid of training runs, and its report."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lit_transformer.cli.arguments import parse_arguments
from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, Preempted, UserError

if TYPE_CHECKING:
    from lit_transformer.studies.cells import Cell, Plan
    from lit_transformer.studies.engine import Engine
    from lit_transformer.studies.study import Study
    from lit_transformer.studies.worker import Folder

EXIT_FAILED = 1


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "study",
        "Train the cells of a study (arms x settings x seeds) as ordinary runs, several at a time, and write a\n"
        "report: one HTML page, a summary and CSV files. Finished cells are skipped: kill it, and start it again.\n"
        "Overlays of recipes may follow (--config overlays/tiny), and any --KEY VALUE of the recipes or the study\n"
        "(--trainer.max_steps 100, --study.seeds '[1]').",
        "lit-transformer study --config positions --output runs/positions --processes 2",
    )
    add = result.add_argument
    add("--config", "-c", action="append", default=[], metavar="STUDY",
        help="a study by name (--list names them) or a file; further ones are overlays")  # fmt: skip
    add("--list", action="store_true", help="print the studies that ship, and stop")
    add("--output", metavar="FOLDER", help="where everything goes (default: runs/studies/NAME)")
    add("--processes", type=int, metavar="N", help="cells trained at a time (default: cores / threads)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of each cell (default: %(default)s)")
    add("--devices", default="", metavar="0,1", help="accelerators that the processes share out, one each in turn")
    add("--cell", type=int, metavar="N", help="run this cell alone and write no report: for tasks of a job array")
    add("--plan", action="store_true", help="print the cells, check that they match, and stop")
    add("--slurm", metavar="FILE", help="write a script that runs the cells as a job array, and stop")
    add("--allow", action="append", default=[], metavar="PACKAGE",
        help="let recipes and the study name classes of this package of yours; may be repeated")  # fmt: skip
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options, rest = parser().parse_known_args(argv)
    if options.list:
        return print_studies()
    if not options.config:
        raise UserError("study: --config is missing; --list names the studies that ship")
    from lit_transformer.studies.cells import Plan
    from lit_transformer.studies.reading import read_study
    from lit_transformer.studies.worker import Folder

    study = read_study(options.config, overrides(rest), options.allow)
    if study.search is not None:
        return search(study, options)
    plan = Plan(study)
    folder = Folder(options.output or Path("runs") / "studies" / study.name)
    if options.slurm:
        from lit_transformer.studies.slurm import write_script

        if options.plan or options.devices or options.cell is not None:
            raise UserError("study: --slurm is for all cells, and SLURM gives each its accelerator; leave out --cell, "
                            "--plan and --devices")  # fmt: skip
        check = partial(check_elsewhere, plan, options.allow)
        print(write_script(Path(options.slurm), plan, folder, argv, check))
        return EXIT_DONE
    if importlib.util.find_spec("scipy") is None:
        raise UserError("study: its intervals and tests need scipy; pip install 'lit-transformer[studies]'")
    engine = engine_of(plan, folder, options)
    if options.plan:
        return print_plan(engine)
    failed = engine.run(options.cell)
    if engine.elsewhere and not failed:
        names = ", ".join(cell.name for cell in engine.elsewhere[:3])
        more = f" and {len(engine.elsewhere) - 3} more" if len(engine.elsewhere) > 3 else ""
        raise Preempted(f"in work elsewhere: {names}{more}; start again once they are done, for the report")
    return finished(folder, failed, options.allow, options.cell is None)


def print_studies() -> int:
    """Prints names and first lines of the studies that ship."""
    from lit_transformer.studies.study import shipped_studies

    found = shipped_studies()
    width = max((len(name) for name, _ in found), default=0)
    for name, text in found:
        print(f"{name:<{width}}  {text}")
    return EXIT_DONE


def check_elsewhere(plan: "Plan", allow: Sequence[str]) -> None:
    """Refuses recipes that no cell can be trained by; neither their data nor the job's devices need be here.

    Whether arms match is not known without the data: each cell looks, and ``--plan`` where the data are.

    Raises:
        UserError: The first that is wrong.
    """
    from lit_transformer.cli.rehearsal import rehearse_elsewhere
    from lit_transformer.cli.resolution import Resolution
    from lit_transformer.cli.training import locating, quiet

    quiet()
    for cell in plan.groups:
        resolution = Resolution(plan.recipe(cell), list(allow))
        with locating(resolution):
            rehearse_elsewhere(resolution)
        for step in plan.steps(cell):
            Resolution(plan.step_recipe(cell, step), list(allow))


def engine_of(plan: "Plan", folder: "Folder", options: argparse.Namespace) -> "Engine":
    """What runs the cells of a study."""
    from lit_transformer.cli.cells import Verbs
    from lit_transformer.studies.engine import Engine

    devices = [each for each in options.devices.split(",") if each]
    return Engine(plan, folder, Verbs(options.allow), processes(options), options.threads, devices)


def finished(folder: "Folder", failed: "list[Cell]", allow: Sequence[str] = (), whole: bool = True) -> int:
    """Writes the report, and says which cells failed."""
    if whole:
        from lit_transformer.studies.report import write_report

        print(f"report: {write_report(folder.path, allow)}")
    if failed:
        print(f"{len(failed)} cells failed; started again, they are tried again", file=sys.stderr)
    return EXIT_FAILED if failed else EXIT_DONE


def search(study: "Study", options: argparse.Namespace) -> int:
    """Runs a search, arm after arm."""
    if importlib.util.find_spec("optuna") is None or importlib.util.find_spec("scipy") is None:
        raise UserError("study: a search needs optuna and scipy; pip install 'lit-transformer[search]'")
    if options.cell is not None or options.slurm or options.plan:
        raise UserError("study: the arms of a search are not known before; leave out --cell, --slurm and --plan")
    from lit_transformer.studies.search import run_search
    from lit_transformer.studies.worker import Folder

    folder = Folder(options.output or Path("runs") / "studies" / study.name)
    failed = run_search(study, folder, lambda plan: engine_of(plan, folder, options))
    return finished(folder, failed, options.allow)


def overrides(words: list[str]) -> list[tuple[str, str]]:
    """Keys and values of the study and of its recipes.

    Raises:
        UserError: Something that is neither.
    """
    found: list[tuple[str, str]] = []
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word.startswith("--study."):
            name, equals, value = word[2:].partition("=")
            if not equals and not queue:
                raise UserError(f"study: --{name} needs a value")
            found.append((name, value if equals else queue.pop(0)))
        else:
            rest.append(word)
            if word.startswith("--") and "=" not in word and queue:
                rest.append(queue.pop(0))
    return [*found, *parse_arguments("study", rest, parser().names).overrides]


def processes(options: argparse.Namespace) -> int:
    """How many cells are trained at a time."""
    if options.processes is not None:
        return int(options.processes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, int(options.threads)))


def print_plan(engine: "Engine") -> int:
    """Prints the cells."""
    from lit_transformer.studies.matching import check_match, table

    facts = engine.inspect()
    print(table(engine.plan, facts))
    for cell in engine.plan.cells:
        print(f"{cell.number:>5}  {cell.name}")
    check_match(engine.plan, facts)
    return EXIT_DONE
