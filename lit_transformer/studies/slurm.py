"""A study as a job array."""

import shlex
from collections.abc import Callable
from pathlib import Path

from lit_transformer.errors import EnvironmentFault, UserError
from lit_transformer.studies.cells import Plan
from lit_transformer.studies.worker import Folder

SCRIPT = """\
#!/usr/bin/env bash
# Written by `lit-transformer study --slurm`; add partition, account and accelerators, then submit it with sbatch.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --time=24:00:00
#SBATCH --signal=SIGUSR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%A_%a.log
set -uo pipefail
cd {folder}
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
srun --cpus-per-task="$OMP_NUM_THREADS" \\
    {command} --output {output} --threads "$OMP_NUM_THREADS" --cell "$SLURM_ARRAY_TASK_ID"
code=$?
# 75: stopped by a signal, everything saved.
if [ "$code" -eq 75 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
# Once all are done: lit-transformer report --output {output}
"""


def write_script(path: Path, plan: Plan, folder: Folder, argv: list[str], check: Callable[[], None]) -> str:
    """Writes the script; gives its text.

    Args:
        path: The file.
        plan: The cells.
        folder: The study's folder.
        argv: The command line of the verb.
        check: Raises what speaks against the study, before anything is written.

    Raises:
        UserError: The file is there and says something else, or is a folder.
    """
    words, queue = ["lit-transformer", "study"], list(argv)
    while queue:
        word = queue.pop(0)
        name, equals, _ = word.partition("=")
        if name not in ("--slurm", "--output", "--threads", "--processes"):
            words.append(word)
        elif not equals:
            queue.pop(0)
    text = SCRIPT.format(
        name=plan.study.name, last=len(plan.cells) - 1, folder=shlex.quote(str(Path.cwd())),
        command=shlex.join(words), output=shlex.quote(str(folder.path)),
    )  # fmt: skip
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file with --slurm")
    try:
        known = path.read_text(encoding="utf-8", errors="replace") if path.exists() else text
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from error
    if known != text:
        raise UserError(f"{path}: is there already and says something else; name another file with --slurm")
    check()
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from error
    return text
