"""``lit-transformer submit``: a recipe as a job of a cluster."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lit_transformer.cli.arguments import Arguments, parse_arguments
from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, EnvironmentFault, UserError
from lit_transformer.recipe.tree import plain

SCRIPT = """\
#!/usr/bin/env bash
# Written by `lit-transformer submit`; submit it with sbatch, or edit it first.
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={devices}
{options}#SBATCH --time={time}
#SBATCH --signal=SIGUSR1@{notice}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={log}
set -uo pipefail
cd {folder}
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
# Since 22.05 srun takes the cores of a task from nowhere else.
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
run={run}

# All hosts meet and exchange a number, within a minute; a job with a dead one would wait at its first exchange.
if [ "$SLURM_NNODES" -gt 1 ]; then
    if ! said=$(timeout -k 3 55 srun --ntasks-per-node=1 --ntasks="$SLURM_NNODES" --kill-on-bad-exit=0 \\
        lit-transformer preflight --timeout 45 --port "$((27000 + SLURM_JOB_ID % 5000))" 2>&1); then
        echo "$said" >&2
        dead=$(echo "$said" | grep -o 'failed on node [^:]*' | cut -d' ' -f4 | sort -u | xargs)
        echo "submit: ${{dead:-the hosts named above}}: no answer; leave out with sbatch --exclude" >&2
        exit 3
    fi
    echo "$said"
fi

# The signal of --signal reaches every task; the shell only waits. A task that is done first leaves the others a
# minute: srun would otherwise kill one that is still on its way out, and its code would not be 75.
trap '' SIGUSR1
srun --kill-on-bad-exit=0 --wait=60 {command} --output "$run" --resume
code=$?
# 75: stopped by a signal, everything saved; srun reports the highest code of its tasks.
if [ "$code" -eq 75 ]; then
    echo "submit: stopped at a checkpoint; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def parser() -> argparse.ArgumentParser:
    """The options of the verb; all others are those of ``fit``."""
    result = OptionParser(
        "submit",
        "Write and print a SLURM script that trains a recipe; nodes and tasks are those of the recipe's "
        "trainer.num_nodes and trainer.devices. Options that are not listed here are passed on to fit. Recipe and "
        "strategy are checked first, as fit does; the job's devices need not be here. The job goes on by itself after "
        "a pre-emption or the time limit: fit answers the signal with a checkpoint and exit code 75, the job goes back "
        "into the queue, and begins again with --resume.",
        "lit-transformer submit --config R --config overlays/strategy/fsdp2 --trainer.num_nodes 4 --time 1:00:00",
    )
    result.add_argument(
        "--config", "-c", action="append", required=True, metavar="R", help="recipe or overlay; repeatable"
    )
    result.add_argument("--output", metavar="FILE", help="where the script goes (default: NAME.sbatch)")
    result.add_argument("--runs", metavar="FOLDER", help="the run folder (default: runs/NAME/slurm-JOB); of an "
                        "array FOLDER/TASK")  # fmt: skip
    result.add_argument("--time", default="24:00:00", metavar="H:MM:SS", help="time limit (default: 24:00:00)")
    result.add_argument(
        "--notice", type=int, default=180, metavar="S", help="seconds from signal to end (default: 180)"
    )
    result.add_argument("--partition", metavar="P", help="where to run")
    result.add_argument("--account", metavar="A", help="who pays")
    result.add_argument("--cpus", type=int, metavar="N", help="CPU cores of each task")
    result.add_argument("--memory", metavar="SIZE", help="memory of each node, 64G say")
    result.add_argument("--array", metavar="RANGE", help="array job, 0-3 say: seed_everything + number of the task")
    result.add_argument("--run", action="store_true", help="submit it with sbatch, too")
    return result


def run(argv: list[str]) -> int:
    """Checks the recipe, writes the script, prints it, and submits it where that is asked for."""
    environment = dict(os.environ)
    options, rest = parser().parse_known_args(argv)
    arguments = parse_arguments("fit", rest)
    arguments.configs = options.config
    _check_options(options, arguments)
    name = re.sub(r"[^\w.-]", "-", Path(options.config[0]).stem)
    recipe: dict[str, Any] = plain(arguments.recipe())
    text = script(name, recipe, options, rest)
    target = Path(options.output or f"{name}.sbatch")
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise UserError(f"{target}: is there already and says something else; name another file with --output")
    check(arguments, *geometry(recipe))
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror or error}") from error
    print(text, end="")
    print(f"written to {target}", file=sys.stderr)
    if options.run:
        submit(target, environment)
    return EXIT_DONE


def _check_options(options: argparse.Namespace, arguments: Arguments) -> None:
    if arguments.print_config:
        raise UserError("submit: --print_config trains nothing; it belongs to fit")
    if isinstance(arguments.resume, str):
        raise UserError(f"submit: --resume={arguments.resume}: a job goes on with its own run folder; name the one to "
                        "go on with as --runs FOLDER, or begin from the weights with --init_from")  # fmt: skip
    if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", options.time):
        raise UserError(f"--time {options.time}: is no time; write days-hours:minutes:seconds, 24:00:00 say")
    if options.notice < 10:
        raise UserError(f"--notice {options.notice}: must be at least 10 seconds, which a checkpoint needs")
    if options.cpus is not None and options.cpus < 1:
        raise UserError(f"--cpus {options.cpus}: must be at least 1")
    numbers = r"\d+(-\d+(:\d+)?)?"
    if options.array and not re.fullmatch(rf"{numbers}(,{numbers})*(%\d+)?", options.array):
        raise UserError(f"--array {options.array}: is no range; write 0-3, 0,2,5 or 0-9%2")


def check(arguments: Arguments, nodes: int, devices: int) -> None:
    """Refuses what ``fit`` would refuse before it starts a process; the devices need not be here.

    Raises:
        UserError: The recipe, or its strategy on these devices; one line.
    """
    from lit_transformer.cli.rehearsal import rehearse_elsewhere
    from lit_transformer.cli.resolution import Resolution
    from lit_transformer.cli.training import locating, quiet

    quiet()
    resolution = Resolution(arguments.recipe(), arguments.allow)
    with locating(resolution):
        found = rehearse_elsewhere(resolution)
        found.check(found.strategy, nodes * devices)


def geometry(recipe: dict[str, Any]) -> tuple[int, int]:
    """Number of nodes, and of devices on each.

    Raises:
        UserError: The recipe does not say how many devices, or a number is out of range.
    """
    trainer = recipe.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    return number(trainer, "num_nodes", 1), number(trainer, "devices", None)


def script(name: str, recipe: dict[str, Any], options: argparse.Namespace, rest: list[str]) -> str:
    """The text of the job.

    Raises:
        UserError: The recipe does not say how many devices, or a number is out of range.
    """
    nodes, devices = geometry(recipe)
    gpu = str(recipe["trainer"].get("accelerator", "auto")) != "cpu"
    wanted = {
        "gpus-per-node": devices if gpu else None,
        "cpus-per-task": options.cpus,
        "mem": options.memory,
        "partition": options.partition,
        "account": options.account,
        "array": options.array,
    }
    words = ["lit-transformer", "fit", *(word for each in options.config for word in ("--config", each))]
    runs = None if options.runs is None else re.sub(r'(["`\\])', r"\\\1", options.runs)
    if options.array:
        given = recipe.get("seed_everything")
        seed = given if isinstance(given, int) and not isinstance(given, bool) else 0
        line = shlex.join([*words, *_without(rest, "--seed_everything")])
        line += f' --seed_everything "$(({seed} + SLURM_ARRAY_TASK_ID))"'
        run_folder = (
            f"{runs}/$SLURM_ARRAY_TASK_ID" if runs else f"runs/{name}/slurm-$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID"
        )
    else:
        line = shlex.join([*words, *rest])
        run_folder = runs or f"runs/{name}/slurm-$SLURM_JOB_ID"
    return SCRIPT.format(
        name=name,
        nodes=nodes,
        devices=devices,
        options="".join(f"#SBATCH --{key}={value}\n" for key, value in wanted.items() if value is not None),
        time=options.time,
        notice=options.notice,
        log=f"{name}-%A_%a.log" if options.array else f"{name}-%j.log",
        folder=shlex.quote(str(Path.cwd())),
        run=f'"{run_folder}"',
        command=line,
    )


def _without(words: list[str], option: str) -> list[str]:
    """The words without an option and its value."""
    kept, rest = [], iter(words)
    for word in rest:
        if word == option:
            next(rest, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def number(trainer: dict[str, Any], key: str, default: int | None) -> int:
    """A whole number of the trainer's.

    Raises:
        UserError: It is none, or missing and needed.
    """
    value = trainer.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        said = "is not said" if value is None else f"is {value}"
        raise UserError(f"trainer.{key}: {said}, and a job needs a whole number: --trainer.{key} N")
    return value


def submit(path: Path, environment: dict[str, str]) -> None:
    """Hands the script to SLURM.

    Args:
        path: The script.
        environment: Which the job inherits: as it was before anything was imported for the checks.

    Raises:
        EnvironmentFault: There is no sbatch, or it refuses.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise EnvironmentFault(f"sbatch: not found; {path} is written, submit it where SLURM is")
    done = subprocess.run([sbatch, str(path)], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise EnvironmentFault(f"sbatch: {' '.join(done.stderr.split())}")
    print(done.stdout.strip(), file=sys.stderr)
