"""A study as a job array: what its script says, and what is refused before one is written."""

from pathlib import Path
from typing import Any

import pytest

WORDS = ("study", "--config", "study.yaml", "--output", "out")


def test_the_script_runs_a_cell_for_each_task(here: Path, command: Any) -> None:
    code, out, err = command(*WORDS, "--processes", 2, "--slurm=job.sh", "--study.seeds", "[1, 2]")
    assert code == 0, err
    text = (here / "job.sh").read_text()
    assert out == text + "\n" and "#SBATCH --array=0-5\n" in text
    [line] = [line for line in text.splitlines() if "--cell" in line]
    assert line.split() == [
        "lit-transformer", "study", "--config", "study.yaml", "--study.seeds", "'[1,", "2]'", "--output", "out",
        "--threads", '"$OMP_NUM_THREADS"', "--cell", '"$SLURM_ARRAY_TASK_ID"',
    ]  # fmt: skip
    assert not (here / "cache").exists() and not (here / "out").exists()  # neither data nor folders were made


@pytest.mark.parametrize(("words", "said"), [
    (["--slurm", "."], ".: is a folder; name a file with --slurm"),
    (["--slurm", "nowhere/job.sh"], "nowhere/job.sh: cannot be written: No such file"),
    (["--slurm", "base.yaml"], "base.yaml: is there already and says something else"),
    (["--slurm", "job.sh", "--devices", "0,1"], "leave out --cell, --plan and --devices"),
    (["--slurm", "job.sh", "--plan"], "leave out --cell, --plan and --devices"),
    (["--slurm", "job.sh", "--model.network.positon", "RoPE"], "positon: unknown key; did you mean position?"),
    (["--slurm", "job.sh", "--study.arms.same.model.optimizer.lr", "fast"], "model.optimizer.lr: expected"),
    (["--slurm", "job.sh", "--study.steps+", "[{name: more, data.blok_size: 3}]"], "data.blok_size: unknown key"),
    (["--outp", "out2"], "study: unknown option '--outp'; did you mean --output?"),
    (["--nothing", "1"], "study: unknown option '--nothing'; valid: --allow, --cell, --config,"),
    (["word"], "study: unexpected 'word'"),
    (["--trainer.max_steps"], "study: --trainer.max_steps needs a value"),
])  # fmt: skip
def test_what_is_refused_before_a_script_is_written(words: list[str], said: str, here: Path, command: Any) -> None:
    code, _, err = command(*WORDS, *words)
    assert code == (3 if "cannot be" in said else 2) and said in err and err.count("\n") == 1, err
    assert not (here / "job.sh").exists()
