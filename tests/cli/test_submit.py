"""The job script: geometry, signal, array, and what is refused."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from lit_transformer.cli.arguments import parse_arguments
from lit_transformer.cli.submit import check

SLURM = Path(__file__).parent.parent.parent / "scripts" / "slurm"


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
    code, out, _ = command("submit", "--config", "tiny.yaml", "--trainer.devices", "1", "--array", "0-3",
                           "--seed_everything", "100", "--runs", "seeds", "--output", "other.sbatch")  # fmt: skip
    assert code == 0 and out.count("--seed_everything") == 1 and '"$((100 + SLURM_ARRAY_TASK_ID))"' in out
    assert 'run="seeds/$SLURM_ARRAY_TASK_ID"' in out  # a folder for each


def test_a_job_for_gpus_that_are_elsewhere(command, folder, monkeypatch):
    """What only the job's machine can have is not asked of this one; what the job would say is said here."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    gpus = ["--trainer.accelerator", "gpu", "--trainer.devices", "8", "--trainer.num_nodes", "64", "--config"]
    code, out, err = command("submit", "--config", "tiny.yaml", *gpus, "overlays/bf16", "--init_from", "a.ckpt")
    assert code == 0, err
    assert "#SBATCH --gpus-per-node=8" in out and '--init_from a.ckpt --output "$run" --resume' in out
    code, out, err = command("submit", "--config", "tiny.yaml", *gpus, "overlays/fp8", "--output", "fp8.sbatch")
    assert code == 0, err


@pytest.mark.parametrize(("words", "said"), [
    ([], "trainer.devices: is not said"),
    (["--trainer.devics", "4"], "trainer.devices: is not said"),
    (["--trainer.devices", "1", "--trainer.max_stps", "4"], "max_stps: unknown key; did you mean max_steps"),
    (["--trainer.devices", "1", "--traner.max_steps", "4"], "unknown option '--traner.max_steps'; did you mean"),
    (["--config", "overlays/strategy/fsdp2_tp", "--trainer.devices", "3"], "2 does not divide the 3 devices"),
    (["--config", "overlays/strategy/fsdp2", "--trainer.devices", "8", "--model.optimizer", "Muon"], "Muon needs whole"),
    (["--trainer.devices", "1", "--trainer.strategy", "ddpp"], "unknown strategy 'ddpp'; did you mean ddp"),
    (["--trainer.devices", "4", "--trainer.num_nodes", "2", "--data.batch_size", "{class_path: AcrossDevices, rows: 12}"],
     "12 rows cannot be shared by 8 devices that see different data; valid: 8, 16"),
    (["--trainer.devices", "1", "--resume=runs/other"], "--resume=runs/other: a job goes on with its own run folder"),
    (["--trainer.devices", "1", "--print_config"], "--print_config trains nothing"),
    (["--trainer.devices", "1", "--array", "some"], "--array some: is no range"),
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
        "srun": 'case "$*" in *preflight*) [ -z "$DEAD" ] || { echo "$DEAD" >&2; exit 3; };; '
        '*) echo "srun $*"; exit $CODE;; esac',
        "scontrol": 'echo "scontrol $*"',
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
    dead = job(
        CODE="0", DEAD="srun: error: Task launch for StepId=2.0 failed on node n2: Socket timed out", SLURM_NNODES="2"
    )
    assert dead.returncode == 3 and "submit: n2: no answer" in dead.stderr and "srun --kill" not in dead.stdout


EXAMPLES = {
    "one_node": "submit --config quickstart --config overlays/strategy/ddp --trainer.devices 8 --cpus 8",
    "many_nodes": "submit --config language_modeling/shakespeare_char --config overlays/strategy/fsdp2 --trainer.devices 8 --trainer.num_nodes 4 "
    "--trainer.rank_timeout 300 --cpus 8 --time 12:00:00",
    "array": "submit --config quickstart --trainer.devices 1 --array 0-4",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_shipped_examples_are_what_the_command_writes(name, command, folder):
    assert command(*EXAMPLES[name].split(), "--output", "job.sbatch")[0] == 0
    shipped = SLURM / f"{name}.sbatch"
    assert shipped.read_text() == (folder / "job.sbatch").read_text().replace(str(folder), "/path/to/project")
    assert subprocess.run(["bash", "-n", str(shipped)], check=False).returncode == 0


def test_the_kubernetes_job_is_of_one_piece():
    """Pods, addresses and devices are said in several places of it."""
    service, job = yaml.safe_load_all((SLURM / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == spec["template"]["metadata"]["labels"]
    names = [f"{job['metadata']['name']}-{i}.{pod['subdomain']}" for i in range(spec["completions"])]
    assert environment["HOSTS"].split(",") == names and environment["MASTER_ADDR"] == names[0]
    assert spec["parallelism"] == spec["completions"] and spec["completionMode"] == "Indexed"
    words = container["args"][0].split()
    assert words[words.index("--trainer.num_nodes") + 1] == str(spec["completions"])
    assert words[words.index("--trainer.devices") + 1] == str(container["resources"]["limits"]["nvidia.com/gpu"])
    recipe = environment["RECIPE"]
    fit = [word.replace("$RECIPE", recipe).strip('"') for word in words[words.index("fit") + 1 :]]
    check(parse_arguments("fit", fit), spec["completions"], container["resources"]["limits"]["nvidia.com/gpu"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
