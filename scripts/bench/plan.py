"""``benchmark.py plan``: the memory that ``lit-transformer plan`` predicts, beside what a real run takes.

Each recipe is trained for some steps in a process of its own, by ``fit``. Its resident memory is read when the network
is about to be built; the most that it ever has after that, less what it had then, is what the prediction is of. The C
library is told to give freed tensors back to the system: by itself it keeps a heap with gaps, which is another fact.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CASES: dict[str, list[str]] = {
    "decoder": [
        "--config", "quickstart", "--model.network.dims", "{d_model: 384, n_layers: 8, n_heads: 6}",
        "--model.optimizer", "torch.optim.AdamW", "--data.batch_size", "8",
    ],
    "decoder, Muon, recompute": [
        "--config", "quickstart", "--model.network.dims", "{d_model: 512, n_layers: 8, n_heads: 8}",
        "--data.batch_size", "16", "--trainer.callbacks+", "Recompute",
    ],
    "encoder-decoder": [
        "--config", "translation/numerals", "--model.network.dims", "{d_model: 384, n_layers: 4, n_heads: 6}",
        "--data.batches.tokens", "4096",
    ],
    "classifier": [
        "--config", "classification/stdlib_packages", "--model.network.dims", "{d_model: 384, n_layers: 6, n_heads: 6}",
        "--data.batches.tokens", "4096", "--trainer.callbacks", "[]",
    ],
    "masked language model": [
        "--config", "masked_language_modeling/stdlib",
        "--model.network.dims", "{d_model: 384, n_layers: 6, n_heads: 6}",
    ],
}  # fmt: skip
"""Recipes that need no download, large enough for tensors to outweigh what the C library keeps beside them."""

SETTINGS = ["--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0",
            "--trainer.enable_checkpointing", "false", "--trainer.logger", "false",
            "--trainer.enable_progress_bar", "false", "--model.schedule", "Constant"]  # fmt: skip


def add_parser(commands: Any) -> None:
    """The subcommand's options."""
    parser = commands.add_parser("plan", help="predicted and measured memory", description=__doc__)
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be repeated")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of the real run (default: 3)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.worker:
        print(json.dumps(globals()[arguments.worker](json.loads(os.environ["PLAN_WORDS"]))))
        return 0
    print(f"{'recipe':<26}{'parameters':>14}{'predicted MB':>14}{'measured MB':>14}{'ratio':>8}")
    worst = 0.0
    for name in arguments.case or CASES:
        words = [*CASES[name], *SETTINGS, "--trainer.max_steps", str(arguments.steps)]
        predicted, measured = _worker("predict", words), _worker("measure", words)
        ratio = predicted["bytes"] / measured["bytes"]
        worst = max(worst, abs(ratio - 1))
        sizes = f"{predicted['bytes'] / 1e6:>14,.0f}{measured['bytes'] / 1e6:>14,.0f}"
        print(f"{name:<26}{predicted['parameters']:>14,}{sizes}{ratio:>8.2f}", flush=True)
        if predicted["parameters"] != measured["parameters"]:
            print(f"  the run has {measured['parameters']:,} parameters")
            worst = float("inf")
    print(f"largest deviation {worst:.1%}")
    return 0 if worst <= 0.15 else 1


def _worker(what: str, words: list[str]) -> dict[str, int]:
    environment = {**os.environ, "PLAN_WORDS": json.dumps(words), "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, str(Path(__file__).resolve().parent.parent / "benchmark.py"), "plan", "--worker", what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def predict(words: list[str]) -> dict[str, int]:
    """What ``plan`` says of one device."""
    from lit_transformer.cli.plan import plan

    found = plan(words, devices=[1])
    memory = found.rows[0].memory
    assert memory is not None
    return {"bytes": memory.total, "parameters": sum(found.parameters.values())}


def measure(words: list[str]) -> dict[str, int]:
    """What ``fit`` takes."""
    from lit_transformer.cli.main import main
    from lit_transformer.tasks.base import Task

    seen: dict[str, int] = {}
    build, start = Task.configure_model, Task.on_train_start

    def configure_model(self: Task) -> None:
        if "before" not in seen:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
            seen["before"] = _status("VmRSS")
        build(self)

    def on_train_start(self: Task) -> None:
        seen["parameters"] = sum(p.numel() for p in self.parameters())  # label heads are built by now
        start(self)

    Task.configure_model = configure_model  # type: ignore[method-assign]
    Task.on_train_start = on_train_start  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        code = main(["fit", *words, "--output", f"{folder}/run"])
    if code:
        raise SystemExit(f"fit ended with {code}")
    return {"bytes": _status("VmHWM") - seen["before"], "parameters": seen["parameters"]}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
