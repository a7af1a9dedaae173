"""Processes that are killed or told to stop: what is left, and whether the run goes on exactly."""

import contextlib
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from soaks.table import Rows, command


@command
def writes(folder: Path, scale: float) -> Rows:
    """Kills of a process that only writes checkpoints: at random, at the first byte of the target, at every call."""
    from tests.checkpoints import kills as k

    folders = [folder / name for name in ("random", "first", "calls")]
    for each in folders:
        each.mkdir()
    tempfile.tempdir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # another file system
    one = k.kill_writers(folders[0], int(100 * scale), size=2_000_000)
    two = k.kill_at_first_byte(folders[1], int(50 * scale), size=400_000)
    three = k.kill_at_every_call(folders[2])
    tempfile.tempdir = None
    return [
        ("random kills", one["kills"], f"{one['in the middle of a write']} in a write"),
        ("  torn, lost or stray files", one["torn or lost"] + one["stray"], 0),
        ("kills at the target's first byte, TMPDIR elsewhere", two["kills"], ""),
        ("  torn, lost or stray files", two["torn or lost"] + two["stray"], 0),
        ("kills before each system call", three["kills"], ""),
        ("  torn, lost or stray files", three["torn or lost"] + three["stray"], 0),
    ]


@command
def kills(folder: Path, scale: float) -> Rows:
    """One run killed (SIGKILL) at random moments and resumed until it is done, against the run without a break."""
    import torch

    from lit_transformer.checkpoints import find_newest
    from tests.checkpoints.kills import forked, wait
    from tests.training.test_checkpointing import _differences, _final
    from tests.training.tiny_run import train

    wanted, chance = int(100 * scale), random.Random(0)
    steps = max(60, 30 * wanted)

    def work(where: Path, resume: Path | None) -> int:
        from lit_transformer.training.ema import EMA
        from lit_transformer.training.trace import Trace

        where.mkdir(parents=True, exist_ok=True)
        trace = Trace(str(where / "trace"))
        train(where, steps, resume=resume, callbacks=(EMA(0.99), trace), every_n_steps=10, accumulate_grad_batches=2,
              val_check_interval=50, limit_val_batches=2)  # fmt: skip
        return 0

    assert wait(forked(lambda: work(folder / "through", None))) == 0
    broken, done, lost, torn, rounds = folder / "killed", 0, 0, 0, 0
    while True:
        found = find_newest(broken) if broken.exists() else None
        torn += bool(found and found.skipped)
        resume = found.path if found else None
        child = forked(lambda resume=resume: work(broken, resume))
        if done < wanted:
            time.sleep(chance.uniform(0.2, 1.2))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = wait(child)
        rounds += 1
        if code == 0:
            break
        done += code == -signal.SIGKILL
        after = find_newest(broken)
        # a checkpoint is due every 10 steps: what the file says may not be older than the steps that were traced
        reached = max((line["step"] for line in _trace(broken).values()), default=0)
        lost += reached - (after.step if after else 0) > 10
    one, other = _trace(folder / "through"), _trace(broken)
    same = sum(one[i] == other.get(i) for i in one)
    differ = _differences(_final(folder / "through"), _final(broken))
    del torch
    return [
        ("kills while training", done, wanted),
        ("checkpoints that did not verify", torn, 0),
        ("kills that lost more than the last checkpoint's distance", lost, 0),
        ("batches equal bit for bit (loss, ids, rate)", f"{same} of {len(one)}", f"{len(one)} of {len(one)}"),
        ("values of the final checkpoint that differ", len(differ), 0),
    ]


def _trace(folder: Path) -> dict[int, dict[str, Any]]:
    from lit_transformer.training.trace import Trace

    path = folder / "trace"
    if not path.exists():
        return {}
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):  # the kill cut the line
        path.write_text("".join(lines[:-1]))
    return Trace.read(path)


@command
def signals(folder: Path, scale: float) -> Rows:
    """SIGTERM, SIGUSR1 and SIGINT at random moments of a run, validations and saves among them."""
    from tests.training.test_signals import stopped

    rows: Rows = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        chance = random.Random(number)
        outcomes = [
            stopped(folder / f"{number}-{i}", number, chance.uniform(0, 0.5)) for i in range(max(1, int(50 * scale)))
        ]
        name = signal.Signals(number).name
        rows += [
            (f"{name}: code 75", sum(o["code"] == 75 for o in outcomes), len(outcomes)),
            (f"{name}: steps lost", sum(o["lost"] for o in outcomes), 0),
            (f"{name}: longest until the end, s", round(max(o["seconds"] for o in outcomes), 2), "<= 5"),
        ]
    return rows
