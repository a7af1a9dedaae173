"""``lit-transformer evaluate``: the tasks of the lm-evaluation-harness on a checkpoint."""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from lit_transformer.cli.model_options import add_hold_option, add_model_options, at_least, load_model
from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.output import opened
from lit_transformer.errors import EXIT_DONE, EnvironmentFault, LitTransformerError, UserError


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "evaluate",
        "Run tasks of EleutherAI's lm-evaluation-harness (extra 'evaluate') on a decoder or a prefix-LM.",
        "lit-transformer evaluate --checkpoint runs/quickstart/20260101-120000 --tasks lambada_openai,hellaswag",
    )
    add_model_options(result)
    add_hold_option(result)
    add = result.add_argument
    add("--tasks", required=True, metavar="NAMES", help="the harness's tasks or groups, parted by commas, * allowed")
    add("--tasks_folder", metavar="FOLDER", help="a folder with tasks of your own, as YAML files of the harness")
    add("--num_fewshot", type=int, metavar="N", help="examples before each question (default: the task's)")
    add("--limit", type=int, metavar="N", help="only the first N questions of each task, for a try")
    add("--batch_size", type=int, default=8, metavar="N", help="most texts read together (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the examples and of sampling (default: %(default)s)")
    add("--output", metavar="FILE", help="write all results to this JSON file")
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    at_least(options, batch_size=1, limit=1, num_fewshot=0)
    try:
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import make_table

        from lit_transformer.interop.harness import HarnessModel
    except ImportError as error:
        raise EnvironmentFault(
            f"evaluate: needs the lm-evaluation-harness ({error}): pip install 'lit-transformer[evaluate]'"
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=_folder(options.tasks_folder))
    names = tasks_of(options.tasks, manager.all_tasks)
    model = HarnessModel(load_model(options, options.batch_size), options.batch_size)
    with opened(options.output) as out:
        results = _evaluated(evaluator, model, names, manager, options)
        if options.output is not None:
            json.dump(results, out, indent=2, default=str)
    print(make_table(results).rstrip())
    if results.get("groups"):
        print(make_table(results, "groups").rstrip())
    return EXIT_DONE


def _folder(path: str | None) -> str | None:
    if path is not None and not Path(path).is_dir():
        raise UserError(f"--tasks_folder: {path} is no folder")
    return path


def tasks_of(wanted: str, known: list[str]) -> list[str]:
    """The tasks that the option names.

    Raises:
        UserError: A name that no task has.
    """
    from fnmatch import fnmatch

    from lit_transformer.recipe.suggest import hint

    found: dict[str, None] = {}
    for name in filter(None, map(str.strip, wanted.split(","))):
        matches = [each for each in known if fnmatch(each, name)]
        if not matches:
            raise UserError(f"--tasks: the harness knows no task {name!r}{hint(name, known)}")
        found |= dict.fromkeys(matches)
    if not found:
        raise UserError("--tasks: names no task")
    return list(found)


def _evaluated(evaluator: Any, model: Any, names: list[str], manager: Any, options: argparse.Namespace) -> Any:
    """The harness's results; what goes wrong with a task's data becomes one line."""
    seed = options.seed
    try:
        return evaluator.simple_evaluate(
            model=model, tasks=names, num_fewshot=options.num_fewshot, limit=options.limit, task_manager=manager,
            log_samples=False, bootstrap_iters=1000, random_seed=seed, numpy_random_seed=seed, torch_random_seed=seed,
            fewshot_random_seed=seed,
        )  # fmt: skip
    except LitTransformerError:
        raise
    except (ConnectionError, FileNotFoundError, OSError, ValueError) as error:
        first = " ".join(str(error).split())[:300] or type(error).__name__
        raise EnvironmentFault(f"evaluate: {', '.join(names)[:100]}: {first}") from error
