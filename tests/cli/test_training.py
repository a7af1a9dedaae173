"""fit, validate, test and predict, end to end on a tiny recipe."""

import json

import pytest
import yaml

from lit_transformer.checkpoints.reading import read
from lit_transformer.cli.plain import differences
from tests.cli.conftest import run_folders


def test_a_run_and_what_follows(command, folder):
    """One run, then everything that is done with a run: one test, as each step stands on the one before."""
    code, out, err = command("fit", "--config", "tiny.yaml")
    assert code == 0, err
    (run,) = run_folders(folder)
    assert run.parent == folder / "runs" / "tiny"
    names = {path.name for path in run.iterdir()}
    assert {"recipe.yaml", "tokenizer.json", "run.log", "checkpoints"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names) and "hparams.yaml" not in names
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    log = (run / "run.log").read_text()
    assert "command: lit-transformer fit --config tiny.yaml" in log and "allowed beside the closed list: none" in log

    stored = read(run / "checkpoints" / "last.ckpt")
    assert stored["hyper_parameters"]["class_path"].endswith("LanguageModeling")
    assert yaml.safe_load((run / "recipe.yaml").read_text())["model"] == stored["hyper_parameters"]

    for place in (run, run / "checkpoints" / "best.ckpt"):
        code, out, err = command("validate", "--checkpoint", place)
        assert code == 0 and "val/loss " in out, err
    code, out, err = command("test", "--ckpt_path", run, "--config", "tiny.yaml")
    assert code == 0 and "test/loss " in out, err

    code, out, err = command("fit", "--config", "tiny.yaml", "--resume", "--trainer.max_steps", "6")
    assert code == 0, err
    assert "last.ckpt: step 4" in err and "changed since the run began: trainer.max_steps: 4 -> 6" in err
    assert run_folders(folder) == [run] and read(run / "checkpoints" / "last.ckpt")["global_step"] == 6

    code, out, err = command("fit", "--config", run / "recipe.yaml", "--init_from", run, "--output", "other",
                             "--trainer.logger", "[CSVLogger]", "--trainer.max_steps=2")  # fmt: skip
    assert code == 0 and "weights loaded" in err, err
    assert (folder / "other" / "metrics.csv").exists()
    assert "save_dir" not in (folder / "other" / "recipe.yaml").read_text()
    code, out, err = command("fit", "--config", "tiny.yaml", "--output", "other")
    assert code == 2 and "is not empty" in err
    code, out, err = command("validate", "--checkpoint", "other", "--model.network.dims.d_model", "32")
    assert code == 2 and err.count("\n") >= 1 and "Traceback" not in err, err


def test_predict_writes_json_lines(command, folder):
    assert command("fit", "--config", "tiny.yaml", "--trainer.max_steps", "1", "--output", "run")[0] == 0
    code, out, err = command("predict", "--checkpoint", "run", "--output", "rows.jsonl")
    if "predict_dataloader" in err:
        pytest.skip("the data does not say what to predict")
    assert code == 0, err
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert rows and set(rows[0]) >= {"id", "log_likelihood"}


def test_a_job_begins_from_weights_and_goes_on_from_its_own_checkpoint(command, folder):
    """What a queue starts again and again, with one command line."""
    assert command("fit", "--config", "tiny.yaml", "--trainer.max_steps", "2", "--output", "first")[0] == 0
    job = ["fit", "--config", "tiny.yaml", "--init_from", "first", "--output", "job", "--resume"]
    (folder / "job").mkdir()
    (folder / "job" / "run.log").write_text("")  # killed before its first checkpoint
    code, _, err = command(*job, "--trainer.max_steps", "1")
    assert code == 0 and "a new run begins from first" in err and "weights loaded" in err, err
    (folder / "first").rename(folder / "gone")
    code, _, err = command(*job, "--trainer.max_steps", "3")
    assert code == 0 and "last.ckpt: step 1" in err and "weights loaded" not in err, err
    assert read(folder / "job" / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_resume_without_a_run_begins_anew(command, folder):
    code, _, err = command("fit", "--config", "tiny.yaml", "--resume", "--trainer.max_steps", "1")
    assert code == 0 and "no checkpoint to resume from; a new run begins" in err


def test_validation_counts_optimizer_steps(command, folder):
    code, out, err = command("fit", "--config", "tiny.yaml", "--trainer.accumulate_grad_batches", "3",
                             "--trainer.max_steps", "5", "--trainer.validate_every", "2")  # fmt: skip
    assert code == 0, err
    steps = [int(line.split()[1]) for line in out.splitlines() if "val/loss" in line]
    assert steps == [2, 4, 5]


def test_differences(tmp_path):
    (tmp_path / "recipe.yaml").write_text("a: {class_path: X, init_args: {b: 1, c: [1, 2]}}\n")
    new = {"a": {"class_path": "Y", "init_args": {"b": 1, "c": [1, 3], "d": None}}}
    assert differences(tmp_path / "recipe.yaml", new) == [
        "changed since the run began: a: X -> Y",
        "changed since the run began: a.c[1]: 2 -> 3",
    ]
    assert differences(tmp_path / "nothing.yaml", new) == []
