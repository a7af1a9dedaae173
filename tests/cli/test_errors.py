"""Malformed recipes: one line that says where, exit code 2, no traceback, nothing written."""

import re

import pytest
import torch

from tests.cli.conftest import RECIPE, run_folders

# name: (what to replace, by what, what the line must say)
EDITS = {
    "key of dims": ("n_heads: 2", "n_head: 2", "bad.yaml:7: model.network.dims.n_head: unknown key; did you mean n_heads"),
    "key of trainer": ("max_steps: 4", "max_step: 4", "bad.yaml:21: trainer.max_step: unknown key; did you mean max_steps"),
    "key of data": ("block_size", "blok_size", "bad.yaml:17: data.blok_size: unknown key; did you mean block_size"),
    "key of model": ("schedule:", "scedule:", "bad.yaml:10: model.scedule: unknown key; did you mean schedule?"),
    "key of optimizer": ("lr: 3e-3", "lrr: 3e-3", "bad.yaml:9: model.optimizer.lrr: unknown key; did you mean lr"),
    "key at the top": ("trainer:", "trainr:", "bad.yaml:20: trainr: unknown key; did you mean trainer?"),
    "another tool's key": ("max_steps: 4", "max_epochs: 4", "bad.yaml:21: trainer.max_epochs: unknown key; runs are"),
    "another tool's validation": ("validate_every", "val_check_interval", "trainer.val_check_interval: unknown key; use"),
    "task": ("LanguageModeling\n", "LanguageModelling\n", "bad.yaml:4: model: unknown LightningModule 'LanguageModelling'"),
    "network": ("DecoderOnly", "DecoderOnlly", "bad.yaml:6: model.network: unknown Network 'DecoderOnlly'; did you mean"),
    "position": ("position: RoPE", "position: RPE", "bad.yaml:8: model.network.position: unknown Position 'RPE'"),
    "optimizer": ("torch.optim.AdamW", "torch.optim.AdmW", "bad.yaml:9: model.optimizer: 'torch.optim.AdmW' may not be"),
    "schedule": ("Cosine", "Cosin", "bad.yaml:10: model.schedule: unknown Schedule 'Cosin'; did you mean Cosine"),
    "data class": ("LanguageModelingData", "LanguageModellingData", "bad.yaml:12: data: unknown LightningDataModule"),
    "corpus": ("FilesCorpus", "FileCorpus", "bad.yaml:14: data.corpus: unknown Corpus 'FileCorpus'; did you mean Files"),
    "tokenizer": ("Character", "Charakter", "data.tokenizer: unknown TokenizerKind 'Charakter'; did you mean Character"),
    "wrong family": ("Character", "RoPE", "data.tokenizer: unknown TokenizerKind 'RoPE'"),
    "float for int": ("d_model: 16", "d_model: 1.6e1", "bad.yaml:7: model.network.dims.d_model: expected a whole number"),
    "text for int": ("d_model: 16", "d_model: wide", "dims.d_model: expected a whole number, got 'wide'"),
    "quoted int": ("d_model: 16", "d_model: '16'", "dims.d_model: expected a whole number, got '16'"),
    "bool for int": ("d_model: 16", "d_model: true", "dims.d_model: expected a whole number, got True"),
    "nothing for int": ("d_model: 16", "d_model: ", "dims.d_model: is empty, expected a whole number"),
    "list for int": ("d_model: 16", "d_model: [16]", "dims.d_model: expected a whole number, got a list of 1"),
    "mapping for int": ("d_model: 16", "d_model: {x: 1}", "dims.d_model: expected a whole number, got keys and values"),
    "text for float": ("lr: 3e-3", "lr: fast", "bad.yaml:9: model.optimizer.lr: expected a number"),
    "int for bool": ("accelerator: cpu", "detect_anomaly: 1", "trainer.detect_anomaly: expected true or false, got 1"),
    "yes for bool": ("accelerator: cpu", "detect_anomaly: yes", "trainer.detect_anomaly: expected true or false, got 'yes'"),
    "number for text": ("cache_dir: cache", "cache_dir: 3", "bad.yaml:19: data.cache_dir: expected text or null, got 3"),
    "choice": ("accelerator: cpu", "precision: bf16-mixd", "trainer.precision: expected one of"),
    "class for number": ("max_steps: 4", "max_steps: {class_path: RoPE}", "trainer.max_steps: expected a whole number"),
    "number for class": ("position: RoPE", "position: 3", "model.network.position: expected the name of a Position, got 3"),
    "list for class": ("position: RoPE", "position: [RoPE]", "model.network.position: expected the name of a Position"),
    "class missing": ("class_path: FilesCorpus", "field: text", ""),
    "required missing": ("  tokenizer: Character\n", "", "bad.yaml:12: data.tokenizer: is missing"),
    "steps missing": ("  max_steps: 4\n", "", "bad.yaml:20: trainer.max_steps: is missing, expected a whole number"),
    "model missing": (RECIPE[RECIPE.index("model:") : RECIPE.index("data:")], "", "model: is missing"),
    "data empty": (RECIPE[RECIPE.index("data:") : RECIPE.index("trainer:")], "data:\n", "bad.yaml:11: data: is empty"),
    "model a list": ("model:\n", "model: []\nmodl:\n", ""),
    "trainer a word": (RECIPE[RECIPE.index("trainer:") :], "trainer: fast\n", "trainer: expected keys and values"),
    "filled in": ("  schedule: Cosine", "  max_steps: 4", "model.max_steps: is filled in from trainer.max_steps; remove it"),
    "vocabulary": ("  schedule: Cosine", "  vocabulary: {size: 4}", "model.vocabulary: is filled in from the data"),
    "resume in a recipe": ("seed_everything: 1", "resume: true", "bad.yaml:2: resume: belongs on the command line"),
    "allow in a recipe": ("seed_everything: 1", "allow: [os]", "bad.yaml:2: allow: belongs on the command line, as --allow"),
    "init_from in a recipe": ("seed_everything: 1", "init_from: x", "init_from: belongs on the command line"),
    "ckpt_path in a recipe": ("seed_everything: 1", "ckpt_path: x", "ckpt_path: belongs on the command line"),
    "optimizer at the top": ("seed_everything: 1", "optimizer: AdamW", "optimizer: unknown key; it belongs into model.opt"),
    "seed a word": ("seed_everything: 1", "seed_everything: lucky", "seed_everything: expected true or false or a whole"),
    "seed negative": ("seed_everything: 1", "seed_everything: -1", "seed_everything: is -1, must be 0 to 2^32 - 1"),
    "given twice": ("max_steps: 4", "max_steps: 4\n  max_steps: 5", "bad.yaml:22: trainer.max_steps: is given twice"),
    "sizes that do not fit": ("n_heads: 2", "n_heads: 3", "bad.yaml:7: model.network.dims.n_heads: 3 does not divide d_model"),
    "negative size": ("d_model: 16", "d_model: -16", "bad.yaml:7: model.network.dims.d_model: is -16, must be at least 1"),
    "zero steps": ("max_steps: 4", "max_steps: 0", "bad.yaml:21: trainer.max_steps: is 0, must be at least 1"),
    "zero validations": ("validate_every: 2", "validate_every: 0", "bad.yaml:22: trainer.validate_every: is 0"),
    "zero block": ("block_size: 16", "block_size: 0", "bad.yaml:17: data.block_size: is 0, must be at least 1"),
    "a thousand devices": ("accelerator: cpu", "accelerator: cpu\n  devices: 99999", "bad.yaml:24: trainer.devices: is 99999"),
    "accelerator": ("accelerator: cpu", "accelerator: gpux", "bad.yaml:23: trainer.accelerator: "),
    "strategy": ("accelerator: cpu", "strategy: dpp", "bad.yaml:23: trainer.strategy: "),
    "data file": ("train.txt", "nowhere.txt", "nowhere.txt"),
    "negative rate": ("lr: 3e-3", "lr: -1", "bad.yaml:9: model.optimizer"),
    "too wide": ("d_model: 16", "d_model: 200000000000", "is too large for"),
    "callback": ("accelerator: cpu", "callbacks: [EarlyStoping]", "trainer.callbacks[0]: unknown Callback 'EarlyStoping'"),
    "callback's key": ("accelerator: cpu", "callbacks: [{class_path: EarlyStopping, monitr: x}]", "callbacks[0].monitr"),
    "callback incomplete": ("accelerator: cpu", "callbacks: [EarlyStopping]", "trainer.callbacks[0].monitor: is missing"),
    "logger": ("accelerator: cpu", "logger: TensorBoard", "unknown Logger 'TensorBoard'; did you mean TensorBoardLogger?"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_malformed_recipe_is_one_line(name, command, folder):
    old, new, message = EDITS[name]
    assert old in RECIPE
    (folder / "bad.yaml").write_text(RECIPE.replace(old, new, 1))
    code, out, err = command("fit", "--config", "bad.yaml")
    lines = [line for line in err.splitlines() if line.startswith("lit-transformer: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0], err
    assert "Traceback" not in err and "internal error" not in err
    assert not list(folder.glob("runs/*/*/*.ckpt")) and not list(folder.glob("runs/*/*/recipe.yaml"))
    assert not run_folders(folder)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--trainer.max_step", "3"], "command line: trainer.max_step: unknown key; did you mean max_steps"),
        (["--model.network.dims.n_head=3"], "command line: model.network.dims.n_head: unknown key"),
        (["--model.network.position", "Rope"], "command line: model.network.position: unknown Position 'Rope'"),
        (["--model.optimizer.lr", "x"], "command line: model.optimizer.lr: expected a number"),
        (["--data.block_size", "1.5"], "command line: data.block_size: expected a whole number, got 1.5"),
        (["--model.network.dims.d_model", "15"], "model.network.dims.n_heads: 2 does not divide d_model 15"),
        (["--trainer.callbacks+", "{class_path: EarlyStopping"], "is not valid YAML"),
        (["--trainer"], "--trainer needs a value"),
        (["--trainer.callbacks", "[*a]"], "names no anchor"),
    ],
)
def test_options_of_the_recipe(option, message, command, folder):
    code, _, err = command("fit", "--config", "tiny.yaml", *option)
    lines = [line for line in err.splitlines() if line.startswith("lit-transformer: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0], err


def test_text_from_a_recipe_cannot_colour_or_break_the_line(command, folder):
    (folder / "bad.yaml").write_text(RECIPE.replace("RoPE", '"Ro\\nPE\\e[31m' + "x" * 5000 + '"'))
    code, _, err = command("fit", "--config", "bad.yaml")
    assert code == 2 and err.count("\n") == 1 and "\x1b" not in err and len(err) < 1000


def test_an_overlay_is_named_by_its_own_file(command, folder):
    (folder / "over.yaml").write_text("\ntrainer:\n  max_steps: many\n")
    _, _, err = command("fit", "--config", "tiny.yaml", "--config", "over.yaml")
    assert "over.yaml:3: trainer.max_steps: expected a whole number, got 'many'" in err


def test_a_metric_that_is_not_logged(command, folder):
    callback = "[{class_path: EarlyStopping, monitor: val/los}]"
    code, _, err = command("fit", "--config", "tiny.yaml", "--trainer.callbacks", callback)
    assert code == 2 and re.search(r"command line: trainer.callbacks\[0\]: .*val/los", err), err


def test_running_out_of_memory_is_a_report_and_the_environments_code(command, folder, monkeypatch):
    def hungry(*_):
        torch.empty(1 << 50)

    monkeypatch.setattr("lit_transformer.training.nonfinite.NonFinite.on_before_backward", hungry)
    code, _, err = command("fit", "--config", "tiny.yaml")
    lines = [line for line in err.splitlines() if line.startswith("lit-transformer: ")]
    assert code == 3 and len(lines) == 1 and "out of memory" in lines[0] and "Traceback" not in err
    assert "out of memory in step 1; batch: tokens (8, 16)" in err
    assert "1. data.batch_size: 8 -> 4 and trainer.accumulate_grad_batches: 1 -> 2" in err
