"""What all benchmarks share: contestants in processes of their own, rounds, medians, one table and one JSON file.

Contestants take turns within a round, so that a machine that gets slower for a while gets slower for all of them, and a
ratio is taken within a round before the median over the rounds is taken.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ALLOCATOR = "+malloc"
Options = dict[str, Any]
WORKER = Path(__file__).with_name("worker.py")


@dataclass
class Case:
    """What a contestant hands to its worker: ``step`` is timed, the rest is printed.

    A step returns its loss, or its own (wall, CPU) seconds where not all that it does is to be counted.
    """

    step: Callable[[], float | tuple[float, float] | None]
    tokens: int = 0
    parameters: int = 0
    note: str = ""


Prepare = Callable[[], Case]
"""What a contestant returns once it has imported what it needs, so that imports are not in its peak memory."""


@dataclass
class Contestant:
    """One row of the table. ``name`` may end in ``+malloc``: the allocator keeps the memory it once had."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    tokens: int = 0
    parameters: int = 0
    note: str = ""
    loss: float | None = None
    error: str | None = None

    def clock(self, name: str) -> list[float]:
        """The times of all rounds by ``wall`` clock or process ``cpu`` time."""
        return self.seconds if name == "wall" else self.cpu_seconds


class Worker:
    """A process that builds one contestant and runs a step each time it is told to."""

    def __init__(self, module: str, name: str, options: dict[str, Any]) -> None:
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        order = json.dumps({"module": module, "name": name, "options": options})
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request, wait for the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            self.stderr.seek(0)
            lines = self.stderr.read().strip().splitlines()
            return {"error": lines[-1] if lines else f"the worker ended with code {self.process.returncode}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process and wait for it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stderr.close()


def race(
    module: str,
    names: Sequence[str],
    options: dict[str, Any],
    rounds: int,
    steps: int,
    report: Callable[[str], None] = lambda line: None,
) -> list[Contestant]:
    """Measure the contestants ``names`` of ``bench.<module>`` in ``rounds`` rounds of ``steps`` steps each.

    One step before the first round is not counted (it allocates the optimizer's moments). Who begins rotates.
    """
    contestants = [Contestant(name) for name in names]
    workers = {c.name: Worker(module, c.name, options) for c in contestants}
    try:
        for c in contestants:
            started = time.perf_counter()
            answer = workers[c.name].ask(steps=1)
            c.error = answer.get("error")
            c.tokens, c.parameters = answer.get("tokens", 0), answer.get("parameters", 0)
            c.note, c.loss = answer.get("note", ""), answer.get("loss")
            report(f"{c.name}: " + (c.error or f"ready after {time.perf_counter() - started:.1f} s"))
        for index in range(rounds):
            for c in rotated([c for c in contestants if c.error is None], index):
                answer = workers[c.name].ask(steps=steps)
                c.error = answer.get("error")
                if c.error is None:
                    c.seconds.append(answer["wall"] / steps)
                    c.cpu_seconds.append(answer["cpu"] / steps)
                    c.peak_bytes = answer["peak_bytes"]
            report(f"round {index + 1} of {rounds}")
    finally:
        for worker in workers.values():
            worker.close()
    return contestants


def rotated(items: list[Contestant], by: int) -> Iterator[Contestant]:
    """The items, beginning with another one each round."""
    for index in range(len(items)):
        yield items[(index + by) % len(items)]


def ratio(ours: Contestant, other: Contestant, clock: str) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(ours.clock(clock), other.clock(clock), strict=True))


def table(contestants: Sequence[Contestant], clock: str, references: Sequence[str]) -> str:
    """A table in Markdown: medians, spread, ratios to each reference, tokens per second, peak memory."""
    by_name = {c.name: c for c in contestants if c.error is None}
    shown = [name for name in references if name in by_name]
    head = [
        "contestant",
        f"ms ({clock})",
        "quartiles",
        *(f"x {name}" for name in shown),
        "tokens/s",
        "peak MB",
        "params",
    ]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for c in contestants:
        if c.error is not None:
            rows.append([c.name, c.error, *[""] * (len(head) - 2)])
            continue
        times = c.clock(clock)
        median = statistics.median(times)
        low, _, high = statistics.quantiles(times, n=4) if len(times) > 1 else (median,) * 3
        rows.append(
            [
                c.name + (f" ({c.note})" if c.note else ""),
                f"{median * 1e3:.1f}",
                f"{low * 1e3:.1f}-{high * 1e3:.1f}",
                *(f"{ratio(c, by_name[name], clock):.2f}" for name in shown),
                f"{c.tokens / median:,.0f}" if c.tokens else "",
                f"{c.peak_bytes / 2**20:,.0f}",
                f"{c.parameters / 1e6:.1f}M" if c.parameters else "",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were measured on: processor, matrix units, threads, versions."""
    model = platform.processor() or platform.machine()
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            if key.strip() == "flags":
                flags = set(value.split())
    except OSError:
        pass
    versions = {}
    for package in ("torch", "transformers", "x-transformers", "lightning"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags]
    return {
        "cpu": model,
        "units": units,
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def describe(about: dict[str, Any]) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['cpu']} ({' '.join(about['units']) or 'no vector units known'}), {about['threads']} thread(s), "
        f"{about['system']}, Python {about['python']}, {versions}"
    )


def add_common(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--threads", type=int, default=1, help="threads of each contestant (default: 1)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that are counted (default: {rounds})")
    parser.add_argument("--steps", type=int, default=1, help="steps in a round (default: 1)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        help="what ratios are taken of: wall time, or the process's CPU time, which a busy machine disturbs less "
        "(default: cpu with one thread, else wall); the JSON file has both",
    )
    parser.add_argument("--output", type=Path, help="also write everything measured to this JSON file")


def publish(
    arguments: argparse.Namespace,
    title: str,
    options: dict[str, Any],
    contestants: Sequence[Contestant],
    references: Sequence[str],
    remarks: Sequence[str] = (),
    append: bool = False,
) -> int:
    """Print the table, write the JSON file; the exit code is 0 where at least one contestant was measured.

    The file is a list of results; ``append`` adds to those that are there.
    """
    clock = arguments.clock or ("cpu" if arguments.threads == 1 else "wall")
    about = machine(arguments.threads)
    print(
        f"{title}\n{describe(about)}\n{arguments.rounds} rounds of {arguments.steps} step(s), contestants interleaved\n"
    )
    print(table(contestants, clock, references))
    print("\npeak MB: highest resident size over the size after imports and a tiny step.")
    print("Ratios are taken within a round; shown is their median.")
    if any(c.name.endswith(ALLOCATOR) for c in contestants):
        print(f"{ALLOCATOR}: mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) at start.")
    for remark in remarks:
        print(remark)
    if arguments.output is not None:
        result = {
            "title": title,
            "machine": about,
            "options": options,
            "clock": clock,
            "contestants": [asdict(c) for c in contestants],
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        earlier = json.loads(arguments.output.read_text()) if append and arguments.output.exists() else []
        arguments.output.write_text(json.dumps([*earlier, result], indent=2) + "\n")
    return 0 if any(c.error is None for c in contestants) else 3


def progress(line: str) -> None:
    """One line on standard error, so that the table can be piped."""
    print(line, file=sys.stderr, flush=True)
