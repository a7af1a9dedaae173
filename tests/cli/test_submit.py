"""The job script: geometry, signal, array, and what is refused."""

import os
import subprocess

import pytest


def test_the_script_takes_its_geometry_from_the_recipe(command, folder):
    code, out, err = command("submit", "--config", "tiny.yaml", "--trainer.devices", "4", "--trainer.num_nodes=2",
                             "--time", "1:00:00", "--memory", "64G", "--data.batch_size", "2")  # fmt: skip
    assert code == 0, err
    text = (folder / "tiny.sbatch").read_text()
    assert out == text and "written to tiny.sbatch" in err
    for line in ("--nodes=2", "--ntasks-per-node=4", "--signal=SIGUSR1@180", "--requeue", "--mem=64G"):
        assert f"#SBATCH {line}\n" in text
    assert "gpus-per-node" not in text  # the recipe says accelerator: cpu
    assert (
        "lit-transformer fit --config tiny.yaml --trainer.devices 4 --trainer.num_nodes=2 --data.batch_size 2" in text
    )
    assert subprocess.run(["bash", "-n", "tiny.sbatch"], check=False).returncode == 0
    assert command("submit", "--config", "tiny.yaml", "--trainer.devices", "4", "--trainer.num_nodes=2",
                   "--time", "1:00:00", "--memory", "64G", "--data.batch_size", "2")[0] == 0  # the same again  # fmt: skip
    code, _, err = command("submit", "--config", "tiny.yaml", "--trainer.devices", "8")
    assert code == 2 and "is there already" in err


def test_an_array_counts_seeds(command, folder):
    code, out, _ = command("submit", "--config", "tiny.yaml", "--trainer.devices", "1", "--array", "0-3")
    assert code == 0 and "#SBATCH --array=0-3\n" in out
    assert (
        '--seed_everything "$((1 + SLURM_ARRAY_TASK_ID))"' in out and "SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID" in out
    )


@pytest.mark.parametrize(("words", "said"), [
    ([], "trainer.devices: is not said"),
    (["--trainer.devices", "auto"], "trainer.devices: is auto"),
    (["--trainer.devices", "1", "--time", "soon"], "--time soon"),
    (["--trainer.devices", "1", "--notice", "1"], "--notice 1"),
])  # fmt: skip
def test_what_a_job_cannot_be_made_of(words, said, command, folder):
    code, _, err = command("submit", "--config", "tiny.yaml", *words)
    assert code == 2 and said in err and err.count("\n") == 1
    assert not (folder / "tiny.sbatch").exists()


def test_the_job_goes_back_into_the_queue_after_a_signal(command, folder, monkeypatch):
    """The script run for real, with programs in SLURM's place that say what they were called with."""
    assert command("submit", "--config", "tiny.yaml", "--trainer.devices", "1")[0] == 0
    tools = folder / "bin"
    tools.mkdir()
    for name, body in {
        "srun": 'case "$*" in *hostname*) echo n1;; *) echo "srun $*"; exit $CODE;; esac',
        "scontrol": 'case "$1" in show) echo n1.cluster; [ -z "$DEAD" ] || echo n2;; *) echo "scontrol $*";; esac',
    }.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NNODES": "1",
                   "SLURM_JOB_NODELIST": "n"}  # fmt: skip

    def job(**more):
        return subprocess.run(
            ["bash", "tiny.sbatch"], env=environment | more, capture_output=True, text=True, check=False
        )

    stopped = job(CODE="75", DEAD="")
    assert stopped.returncode == 75 and "scontrol requeue 7" in stopped.stdout
    assert "--output runs/tiny/slurm-7 --resume" in stopped.stdout
    done = job(CODE="0", DEAD="")
    assert done.returncode == 0 and "requeue" not in done.stdout
    dead = job(CODE="0", DEAD="1")
    assert (
        dead.returncode == 3
        and "no answer within a minute from: n2" in dead.stderr
        and "srun --kill" not in dead.stdout
    )
