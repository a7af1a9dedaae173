"""Trains recipes/quickstart.yaml, or goes on with it, and prints what a newcomer wants to see."""

import contextlib
import io
import sys
import time

from rich.console import Console
from rich.table import Table

from lit_transformer import load
from lit_transformer.checkpoints.finding import find_newest
from lit_transformer.cli.main import main
from lit_transformer.data.baselines import baselines
from lit_transformer.data.corpora import StdlibCorpus

RUNS = "runs/quickstart"


def quickstart() -> int:
    """Trains where that is not done yet; then the numbers, a sample and where to look next."""
    console = Console(highlight=False)
    begun = time.perf_counter()
    code = main(["fit", "--config", "quickstart", "--resume"])
    if code:
        return code
    console.print(f"\nfit took {time.perf_counter() - begun:.0f} s", markup=False)
    found = find_newest(RUNS)
    assert found is not None, "a finished fit leaves a checkpoint"
    run = found.path.parent.parent
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["validate", "--checkpoint", str(found.path)])
    if code:
        return code
    metrics = {}
    for line in printed.getvalue().splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("val/"):
            metrics[name] = float(value)
    console.print(
        f"validation loss {metrics['val/loss']:.3f} nats per token, perplexity {metrics['val/perplexity']:.1f}, "
        f"{metrics['val/bits_per_byte']:.3f} bits per byte\n",
        markup=False,
        soft_wrap=True,
    )
    table = Table("on the validation files", "bits per byte", title_justify="left")
    rows = {**baselines(StdlibCorpus()), "this model": metrics["val/bits_per_byte"]}
    for name, value in sorted(rows.items(), key=lambda row: -row[1]):
        table.add_row(name, f"{value:.2f}", style="bold" if name == "this model" else None)
    console.print(table)
    prompt = "class "
    sample = load(found.path).generate(prompt, max_new_tokens=120, temperature=0.8, top_k=40, seed=1)
    console.print("\na sample:\n", markup=False)
    console.print(prompt + sample, markup=False, soft_wrap=True)
    console.print(
        f"\nthe run:   {run}\n"
        "its log:   .venv/bin/tensorboard --logdir runs      then open http://localhost:6006\n"
        f"go on:     .venv/bin/lit-transformer generate --checkpoint {run} --prompt 'def main('",
        markup=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(quickstart())
