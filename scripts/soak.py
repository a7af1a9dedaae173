"""Long forms of the reliability tests, one subcommand each; every one prints a table of what must be zero or equal.

    python scripts/soak.py list
    python scripts/soak.py kills signals nan --scale 0.1     a tenth of the full numbers
    python scripts/soak.py all

Small models on the CPU; processes are forked from one that has imported everything, so a hundred kills take minutes.
"""

import argparse
import contextlib
import io
import logging
import os
import random
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
Rows = list[tuple[str, Any, Any]]  # what, measured, wanted

COMMANDS: dict[str, Callable[[Path, float], Rows]] = {}


def command(function: Callable[[Path, float], Rows]) -> Callable[[Path, float], Rows]:
    """Makes a function a subcommand."""
    COMMANDS[function.__name__.rstrip("_")] = function
    return function


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


@command
def nan(folder: Path, scale: float) -> Rows:
    """NaN and infinite losses injected, against a plain loop that passes over those windows."""
    import torch

    from lit_transformer.checkpoints import read
    from tests.training.test_nonfinite import without_windows
    from tests.training.tiny_run import Loader, train

    count = max(2, int(50 * scale))
    steps = 8 * count
    poison = sorted(random.Random(0).sample(range(2 * steps), count))
    task, _, _ = train(folder, steps, loader=Loader(poison=tuple(poison)), max_skipped=count, accumulate_grad_batches=2,
                       limit_val_batches=0)  # fmt: skip
    bad = {i // 2 for i in poison}
    expected = without_windows(Loader(), bad, steps, 2)
    equal = all(torch.equal(a, b) for a, b in zip(task.parameters(), expected.parameters(), strict=True))
    content = read(folder / "checkpoints/last.ckpt")
    finite = all(v.isfinite().all() for v in content["state_dict"].values())
    clock = content["run_state"]["clock"]
    return [
        ("bad micro-batches injected", count, count),
        ("updates applied", clock["applied"], steps - len(bad)),
        ("weights equal to the run without those windows", equal, True),
        ("saved weights are finite", bool(finite), True),
    ]


@command
def diskfull(folder: Path, scale: float) -> Rows:
    """A tmpfs with too little left, at random remainders; then a whole training run on a disk that fills up."""
    from lit_transformer.checkpoints import find_newest
    from lit_transformer.errors import LitTransformerError
    from tests.checkpoints import kills as k
    from tests.training.tiny_run import train

    with k.small_disk(folder / "disk", 2000) as disk:
        if disk is None:
            return [("tmpfs", "cannot be mounted here", "root")]
        result = k.fill_disk(disk, max(1, int(20 * scale)))
    rows: Rows = [(name, value, result["full disks"]) for name, value in result.items()]
    good = tried = 0
    for kilobytes in range(44, 44 + 4 * max(1, int(20 * scale)), 4):
        with k.small_disk(folder / f"run{kilobytes}", kilobytes) as disk:
            assert disk is not None
            tried += 1
            try:
                train(disk, every_n_steps=3)
                code = 0
            except LitTransformerError as error:
                code = error.exit_code
            kept = {name for name in os.listdir(disk / "checkpoints")} <= {"last.ckpt", "best.ckpt"}
            try:
                newest = find_newest(disk)
            except LitTransformerError:
                newest, kept = None, False
            good += kept and (code == 0 and newest is not None and newest.step == 40 or code == 3)
    rows.append(("training on disks of 44 kB and more: whole file or none, code 3", good, tried))
    return rows


@command
def corrupt(folder: Path, scale: float) -> Rows:
    """Flipped bits, cuts, wrong kinds of file; each beside an older good one that must be found."""
    from lit_transformer.checkpoints import find_newest, verify
    from lit_transformer.errors import LitTransformerError
    from tests.checkpoints.files import flipped, good, truncated, wrong_kinds

    good(folder / "best.ckpt", 5)
    path = folder / "last.ckpt"
    data = good(path, 9, 20_000).read_bytes()
    rows: Rows = []
    for name, damaged in (
        ("flipped bits", flipped(data, int(1000 * scale))),
        ("truncations", truncated(data, int(200 * scale))),
    ):
        noticed = fell_back = total = 0
        for _, content in damaged:
            total += 1
            path.write_bytes(content)
            try:
                verify(path)
            except LitTransformerError as error:
                noticed += "\n" not in str(error) and error.exit_code == 2
            found = find_newest(folder)
            fell_back += found is not None and found.step == 5 and "last.ckpt" in found.skipped[0]
        rows += [(f"{name} noticed in one line", noticed, total), (f"{name}: the older one found", fell_back, total)]
    kinds = folder / "kinds"
    kinds.mkdir()
    noticed = total = 0
    for _, wrong in wrong_kinds(kinds):
        total += 1
        try:
            verify(wrong)
        except LitTransformerError as error:
            noticed += "\n" not in str(error)
    return [*rows, ("wrong kinds of file, one line each", noticed, total)]


@command
def hostile(folder: Path, scale: float) -> Rows:
    """Every hostile checkpoint with every verb that opens one, under an audit hook."""
    from tests.checkpoints import attacks

    rows = list(attacks.attack(folder, list(attacks.VERBS), None if scale >= 1 else max(3, int(60 * scale))))
    tidy = [r for r in rows if r["code"] in (0, 2) and "Traceback" not in r["said"]]
    for row in rows:
        if row["fired"] or row["events"] or row not in tidy:
            print(row, file=sys.stderr)
    return [
        ("hostile files x verbs", f"{len({r['file'] for r in rows})} x {len({r['verb'] for r in rows})}", ">= 40"),
        ("of these run code when opened without care", len({r["file"] for r in rows if r["dangerous"]}), "> 0"),
        ("executions", sum(r["fired"] for r in rows), 0),
        ("imports, processes, connections", sum(bool(r["events"]) for r in rows), 0),
        ("refused in one line, or unharmed", len(tidy), len(rows)),
    ]


@command
def memory(folder: Path, scale: float) -> Rows:
    """A long run with many saves: memory, open files, stray files. Full length: 60 minutes, 200 saves or more."""
    import psutil
    from lightning.pytorch import Callback

    from tests.training.tiny_run import Task, train

    seconds, process = 3600 * scale, psutil.Process()
    begun = time.monotonic()
    seen: list[tuple[int, int]] = []
    width = 400

    class Watch(Callback):
        saves = 0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if time.monotonic() - begun > seconds:
                trainer.should_stop = True

        def on_save_checkpoint(self, *_: Any) -> None:
            self.saves += 1
            seen.append((process.memory_info().rss, process.num_fds()))
            time.sleep(min(1.0, seconds / 400))

    original = Task.__init__
    Task.__init__ = lambda self, steps=10**9, w=width: original(self, steps, w)  # type: ignore[assignment, misc, method-assign]
    watch = Watch()
    try:
        train(folder, 10**8, callbacks=(watch,), every_n_steps=200, val_check_interval=1000, limit_val_batches=1)
    finally:
        Task.__init__ = original  # type: ignore[method-assign]
    settled = seen[len(seen) // 5 :]
    first, last = (
        statistics.median(rss for rss, _ in part)
        for part in (settled[: len(settled) // 4], settled[-len(settled) // 4 :])
    )
    return [
        ("minutes", round((time.monotonic() - begun) / 60, 1), round(seconds / 60, 1)),
        ("saves", watch.saves, ">= 200"),
        ("growth of memory, %", round(100 * (last / first - 1), 2), "<= 2"),
        ("growth of open files", settled[-1][1] - settled[0][1], 0),
        ("stray files", len(os.listdir(folder / "checkpoints")) - 2, 0),
        ("largest memory, MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, ""),
    ]


@command
def resume(folder: Path, scale: float) -> Rows:
    """verify-resume on every shipped recipe that its data allow, shrunk; with dropout, accumulation, EMA, workers."""
    from lit_transformer.cli.verify_resume import verify_resume
    from lit_transformer.errors import LitTransformerError
    from lit_transformer.recipe import shipped_recipes

    tiny = ["--config", "overlays/tiny"]
    more = ["--trainer.callbacks+", "{class_path: EMA, decay: 0.9}"]
    cases = {
        "": [],
        "accumulation 2, EMA": ["--trainer.accumulate_grad_batches", "2", *more],
        "workers 2, EMA": ["--data.num_workers", "2", *more],
    }
    rows: Rows = []
    for recipe in shipped_recipes():
        if recipe.is_overlay:
            continue
        for name, extra in list(cases.items())[: None if scale >= 1 else 1]:
            try:
                report = verify_resume(["--config", recipe.name, *tiny, *extra])
                result: Any = report.same
                if not report.same:
                    print(report, file=sys.stderr)
            except LitTransformerError as error:
                result = str(error)[:90]
            rows.append((f"{recipe.name} {name}".strip(), result, True))
    return rows


@command
def cost(folder: Path, scale: float) -> Rows:
    """What the guards cost a step at d 384, and what saving costs over a bare write with fsync."""
    import torch

    from lit_transformer.checkpoints import write

    content = {"state_dict": {f"network.{i}": torch.randn(1_000_000) for i in range(64)}, "global_step": 1}
    ours, bare = [], []
    raw = [value.numpy() for value in content["state_dict"].values()]  # type: ignore[attr-defined]
    for _ in range(max(3, int(9 * scale))):
        begun = time.perf_counter()
        write(folder / "ours.ckpt", content, 1)
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with open(folder / "bare.new", "wb") as file:
            for array in raw:
                file.write(memoryview(array).cast("B"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / "bare.new", folder / "bare")
        bare.append(time.perf_counter() - begun)
    rows: Rows = [
        ("saving 256 MB, median s", round(statistics.median(ours), 3), ""),
        ("bare write with fsync, median s", round(statistics.median(bare), 3), ""),
        ("ratio of medians", round(statistics.median(ours) / statistics.median(bare), 2), "<= 1.5"),
        ("ratio of the fastest", round(min(ours) / min(bare), 2), ""),
    ]
    return rows + _step_cost(scale)


def _step_cost(scale: float) -> Rows:
    """Time of the hooks themselves beside the time of the step that they guard: no noise of two runs compared."""
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from torch import nn

    from lit_transformer.blocks.loss import CrossEntropy
    from lit_transformer.dims import Dims
    from lit_transformer.networks import DecoderOnly
    from lit_transformer.training.memory_report import MemoryReport
    from lit_transformer.training.nonfinite import NonFinite
    from lit_transformer.training.run_state import RunState
    from lit_transformer.training.signals import Signals
    from lit_transformer.vocabulary import Vocabulary
    from tests.training.tiny_run import Batch

    torch.manual_seed(0)
    network = DecoderOnly(Vocabulary(size=256, max_len=256), Dims(384, 6, 6))
    loss_of = CrossEntropy()

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network: nn.Module = network

        def training_step(self, batch: Batch, index: int) -> Any:
            tokens = batch.x
            output = self.network(tokens)
            return loss_of(output.hidden, output.head, tokens) / tokens.numel()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)

    spent = [0.0]

    def timed(callback: Any) -> Any:
        for hook in ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"):
            original = getattr(callback, hook)

            def call(*args: Any, original: Any = original, **options: Any) -> None:
                begun = time.perf_counter()
                original(*args, **options)
                spent[0] += time.perf_counter() - begun

            setattr(callback, hook, call)
        return callback

    batch, steps = 4, max(6, int(20 * scale))
    data = [Batch(torch.randint(256, (batch, 256)), torch.arange(batch), torch.tensor(batch * 256)) for _ in range(4)]
    times: list[tuple[float, float]] = []

    class Clock(RunState):
        def on_train_batch_start(self, *args: Any) -> None:
            self.begun = time.perf_counter()
            spent[0] = 0.0
            super().on_train_batch_start(*args)
            spent[0] += time.perf_counter() - self.begun

    state = Clock()
    guards = [timed(callback) for callback in (NonFinite(), MemoryReport(), Signals())]
    original_end = state.on_train_batch_end

    def end(*args: Any, **options: Any) -> None:
        begun = time.perf_counter()
        original_end(*args, **options)
        now = time.perf_counter()
        times.append((spent[0] + now - begun, now - state.begun))

    state.on_train_batch_end = end  # type: ignore[method-assign]
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, callbacks=[state, *guards], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    shares = [100 * guard / whole for guard, whole in times[2:]]
    return [
        ("step at d 384, 6 layers, 4 x 256 tokens, median s", round(statistics.median(t for _, t in times[2:]), 3), ""),
        ("guards, median ms", round(1000 * statistics.median(g for g, _ in times[2:]), 2), ""),
        ("guards' share of the step, %", round(statistics.median(shares), 2), "<= 1"),
    ]


def main() -> int:
    """Runs the subcommands and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", choices=[*COMMANDS, "all", "list"], metavar="COMMAND")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers")
    parser.add_argument("--folder", help="where to work; left out: a temporary folder")
    options = parser.parse_args()
    if "list" in options.commands:
        for name, function in COMMANDS.items():
            print(f"{name:10} {(function.__doc__ or '').splitlines()[0]}")
        return 0
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lit_transformer").setLevel(logging.ERROR)
    failed = 0
    for name in COMMANDS if "all" in options.commands else options.commands:
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{name}-", dir=options.folder))
        begun = time.monotonic()
        try:
            rows = COMMANDS[name](folder, options.scale)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"\n{name} ({time.monotonic() - begun:.0f} s, scale {options.scale:g})")
        for what, measured, wanted in rows:
            verdict = _verdict(measured, wanted)
            failed += verdict == "FAILED"
            print(f"  {what:<66} {measured!s:>14}   {str(wanted):<14} {verdict}".rstrip())
        sys.stdout.flush()
    return 1 if failed else 0


def _verdict(measured: Any, wanted: Any) -> str:
    if isinstance(wanted, str):
        for sign, holds in (("<= ", lambda a, b: a <= b), (">= ", lambda a, b: a >= b), ("> ", lambda a, b: a > b)):
            if wanted.startswith(sign) and isinstance(measured, int | float):
                return "ok" if holds(measured, float(wanted[len(sign) :])) else "FAILED"
        if " of " not in wanted:
            return ""
    return "ok" if measured == wanted else "FAILED"


if __name__ == "__main__":
    with contextlib.redirect_stderr(sys.stderr if sys.stderr else io.StringIO()):
        sys.exit(main())
