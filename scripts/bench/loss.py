"""``benchmark.py loss``: the memory and time that head and cross-entropy add, by the class of the loss.

Each loss goes forward and backward once, over hidden states and a head that are there already, in a process of its own.
What is counted is the most memory it takes beside them, their gradients included.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOSSES = ("CrossEntropy", "ChunkedCrossEntropy", "RecomputedCrossEntropy")


def add_parser(commands: Any) -> None:
    """The subcommand's options."""
    parser = commands.add_parser("loss", help="memory of head and loss", description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--width", type=int, default=768, help="of the hidden states")
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--loss", action="append", help="name of a class, Liger's too; may be repeated")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; fails where a loss takes more than a third of the plain one's memory."""
    if arguments.worker:
        print(json.dumps(measure(arguments)))
        return 0
    print(f"{arguments.tokens:,} tokens, width {arguments.width}, vocabulary {arguments.vocabulary:,}, "
          f"{arguments.device}, float32")  # fmt: skip
    print(f"{'loss':<26}{'MB':>10}{'of the first':>14}{'seconds':>10}{'value':>14}")
    first, worst = 0.0, 0.0
    for name in arguments.loss or LOSSES:
        command = [
            sys.executable,
            str(Path(__file__).resolve().parent.parent / "benchmark.py"),
            "loss",
            "--worker",
            name,
        ]
        for option in ("tokens", "width", "vocabulary", "device"):
            command += [f"--{option}", str(getattr(arguments, option))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found["bytes"]
        share = found["bytes"] / first
        worst = max(worst, share if share < 1 else 0.0)
        print(f"{name:<26}{found['bytes'] / 1e6:>10,.0f}{share:>14.3f}{found['seconds']:>10.1f}{found['value']:>14.3f}",
              flush=True)  # fmt: skip
    return 0 if worst <= 1 / 3 else 1


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One loss, forward and backward."""
    import torch

    from lit_transformer.blocks import loss, streamed_loss
    from lit_transformer.blocks.embedding import Head

    made = (getattr(loss, arguments.worker, None) or getattr(streamed_loss, arguments.worker))()
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    head = Head()
    head.weight = torch.nn.Parameter(torch.randn(arguments.vocabulary, arguments.width, device=device) * 0.02)
    hidden = torch.randn(1, arguments.tokens, arguments.width, device=device, requires_grad=True)
    targets = torch.randint(arguments.vocabulary, (1, arguments.tokens), device=device)
    small = hidden[:, :64].detach().requires_grad_()
    made(small, head, targets[:, :64]).backward()  # what libraries keep for good
    head.weight.grad = None
    before = _now(device)
    begun = time.perf_counter()
    value = made(hidden, head, targets)
    value.backward()
    total = float(value)
    seconds = time.perf_counter() - begun
    return {"bytes": _peak(device) - before, "seconds": seconds, "value": total / arguments.tokens}


def _now(device: Any) -> int:
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    return _status("VmRSS")


def _peak(device: Any) -> int:
    import torch

    return int(torch.cuda.max_memory_allocated()) if device.type == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
