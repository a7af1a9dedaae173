"""``lit-transformer submit``: a recipe as a job of a cluster."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, EnvironmentFault, UserError

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

# The signal of --signal reaches every task; the shell only waits.
trap '' SIGUSR1
srun --kill-on-bad-exit=1 {command} --output "$run" --resume
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
        "trainer.num_nodes and trainer.devices. Options that are not listed here are passed on to fit. The job goes on "
        "by itself after a pre-emption or the time limit: fit answers the signal with a checkpoint and exit code 75, "
        "the job goes back into the queue, and begins again with --resume.",
        "lit-transformer submit --config R --config overlays/strategy/fsdp2 --trainer.num_nodes 4 --time 1:00:00",
    )
    result.add_argument("--config", action="append", required=True, metavar="R", help="recipe or overlay; repeatable")
    result.add_argument("--output", metavar="FILE", help="where the script goes (default: NAME.sbatch)")
    result.add_argument("--runs", metavar="FOLDER", help="the run folder (default: runs/NAME/slurm-JOB)")
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
    """Writes the script, prints it, and submits it where that is asked for."""
    options, rest = parser().parse_known_args(argv)
    recipe = merged(options.config, rest)
    name = Path(options.config[0]).stem
    text = script(name, recipe, options, rest)
    target = Path(options.output or f"{name}.sbatch")
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise UserError(f"{target}: is there already and says something else; name another file with --output")
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror or error}") from error
    print(text, end="")
    print(f"written to {target}", file=sys.stderr)
    if options.run:
        submit(target)
    return EXIT_DONE


def merged(configs: list[str], rest: list[str]) -> dict[str, Any]:
    """The recipe with its overlays, and what the command line changes of the trainer."""
    from lit_transformer.recipe import find_recipe, merge_recipes, read_recipe
    from lit_transformer.recipe.reader import read_value
    from lit_transformer.recipe.tree import plain

    recipe: dict[str, Any] = plain(merge_recipes([read_recipe(*find_recipe(each)) for each in configs]))
    trainer = recipe.setdefault("trainer", {})
    words = iter(rest)
    for word in words:
        if word.startswith("--trainer."):
            key, equals, value = word.removeprefix("--trainer.").partition("=")
            trainer[key] = plain(read_value(value if equals else next(words, "")))
    return recipe


def script(name: str, recipe: dict[str, Any], options: argparse.Namespace, rest: list[str]) -> str:
    """The text of the job.

    Raises:
        UserError: The recipe does not say how many devices, or a value is out of range.
    """
    trainer = recipe["trainer"]
    nodes, devices = number(trainer, "num_nodes", 1), number(trainer, "devices", None)
    if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", options.time):
        raise UserError(f"--time {options.time}: is no time; write days-hours:minutes:seconds, 24:00:00 say")
    if options.notice < 10:
        raise UserError(f"--notice {options.notice}: must be at least 10 seconds, which a checkpoint needs")
    gpu = str(trainer.get("accelerator", "auto")) != "cpu"
    wanted = {
        "gpus-per-node": devices if gpu else None,
        "cpus-per-task": options.cpus,
        "mem": options.memory,
        "partition": options.partition,
        "account": options.account,
        "array": options.array,
    }
    command = ["lit-transformer", "fit", *(word for each in options.config for word in ("--config", each)), *rest]
    run_folder = options.runs or f"runs/{name}/slurm-$SLURM_JOB_ID"
    line = shlex.join(command)
    if options.array:
        seed = int(recipe.get("seed_everything") or 0)
        line += f' --seed_everything "$(({seed} + SLURM_ARRAY_TASK_ID))"'
        run_folder = options.runs or f"runs/{name}/slurm-$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID"
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


def submit(path: Path) -> None:
    """Hands the script to SLURM.

    Raises:
        EnvironmentFault: There is no sbatch, or it refuses.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise EnvironmentFault(f"sbatch: not found; {path} is written, submit it where SLURM is")
    done = subprocess.run([sbatch, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFault(f"sbatch: {' '.join(done.stderr.split())}")
    print(done.stdout.strip(), file=sys.stderr)
