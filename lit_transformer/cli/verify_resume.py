"""``lit-transformer verify-resume``: prove, for a recipe of the user's, that a killed run goes on exactly."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, LitTransformerError, UserError

EXIT_DIFFERENT = 1


def run(argv: list[str]) -> int:
    """Runs the verb."""
    parser = OptionParser(
        "verify-resume",
        "Train a recipe twice, once without a break, once killed (SIGKILL) and resumed, and compare bit for bit:\n"
        "losses, sample ids, learning rates and the final checkpoint. Exit code 0: the same; 1: not.\n"
        "Any --KEY VALUE of the recipe may follow, as with fit.",
        "lit-transformer verify-resume --config quickstart --config overlays/tiny",
    )
    parser.add_argument(
        "--config", "-c", action="append", required=True, metavar="RECIPE", help="recipe, then overlays"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="your package that it may name")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of the whole run (default: 40)")
    parser.add_argument("--at", type=int, default=20, help="step of the checkpoint to resume from (default: 20)")
    options, rest = parser.parse_known_args(argv)
    arguments = [word for recipe in options.config for word in ("--config", recipe)]
    arguments += [word for package in options.allow for word in ("--allow", package)]
    report = verify_resume([*arguments, *rest], steps=options.steps, at=options.at)
    print(report)
    return EXIT_DONE if report.same else EXIT_DIFFERENT


@dataclass(frozen=True)
class Comparison:
    """One thing that was compared.

    Args:
        what: Its name.
        equal: How many of it were equal.
        total: How many there are.
        first: The first difference, in words.
    """

    what: str
    equal: int
    total: int
    first: str = ""


@dataclass(frozen=True)
class Report:
    """Whether an interrupted run did what the uninterrupted one did.

    Args:
        comparisons: All that was compared.
        story: What was run.
    """

    comparisons: tuple[Comparison, ...]
    story: str

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return all(each.equal == each.total and each.total > 0 for each in self.comparisons)

    def __str__(self) -> str:
        lines = [self.story, f"{'compared':<24}{'equal':>12}   first difference"]
        lines += [f"{c.what:<24}{f'{c.equal} of {c.total}':>12}   {c.first}".rstrip() for c in self.comparisons]
        return "\n".join([*lines, "the resumed run is the same, bit for bit" if self.same else "THE RUNS DIFFER"])


def verify_resume(fit_arguments: Sequence[str], steps: int = 40, at: int = 20, lost: int = 3) -> Report:
    """Trains three times, in processes of their own: through, killed, and resumed.

    Args:
        fit_arguments: What ``lit-transformer fit`` is given: ``["--config", "quickstart", ...]``.
        steps: Optimizer steps of the whole run.
        at: Step of the checkpoint that the killed run leaves.
        lost: Steps that it does beyond.

    Raises:
        UserError: One of the runs ended as it should not.
    """
    if not 0 < at < at + lost < steps:
        raise UserError(f"verify-resume: --at {at} must be at least 1 and at most --steps {steps} less {lost + 1}")
    import lit_transformer.cli.training  # noqa: F401  once, before the processes are forked

    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        through, broken = Path(folder, "through"), Path(folder, "killed")
        common = [*fit_arguments, "--trainer.max_steps", str(steps), "--trainer.validate_every", str(at)]
        _expect(_fit([*common, *_output(through)]), 0, "the uninterrupted run", through)
        killed = _fit([*common, *_output(broken)], lambda: _kill_after(at + lost))
        _expect(killed, -signal.SIGKILL, "the run to be killed", broken)
        _expect(_fit([*common, *_traced(broken), f"--resume={broken}"]), 0, "the resumed run", broken)
        story = f"{steps} steps against {at + lost} steps, SIGKILL, and a resume from step {at}"
        return Report(tuple(compare(through, broken)), story)


def compare(through: Path, broken: Path) -> list[Comparison]:
    """Compares the traces and the final checkpoints of two run folders."""
    from lit_transformer.checkpoints.reading import read
    from lit_transformer.training.trace import Trace

    one, other = Trace.read(_trace(through)), Trace.read(_trace(broken))
    result = []
    for key, what in (("loss", "losses"), ("ids", "sample ids"), ("rates", "learning rates")):
        unlike = [i for i in sorted(one.keys() | other.keys()) if one.get(i, {}).get(key) != other.get(i, {}).get(key)]
        first = ""
        if unlike:
            i = unlike[0]
            first = f"batch {i}: {_short(one.get(i, {}).get(key))} against {_short(other.get(i, {}).get(key))}"
        result.append(Comparison(what, len(one) - len(unlike), len(one), first))
    last = "checkpoints/last.ckpt"
    a, b = read(through / last), read(broken / last)
    parts = {
        "weights": "state_dict",
        "averaged weights": "ema",
        "optimizer": "optimizer_states",
        "clock and generators": "run_state",
        "callbacks": "callbacks",
    }
    for what, key in parts.items():
        left, right = dict(leaves(a.get(key))), dict(leaves(b.get(key)))
        names = sorted(left.keys() | right.keys())
        unlike_names = [name for name in names if not _same(left.get(name), right.get(name))]
        if names:
            result.append(Comparison(what, len(names) - len(unlike_names), len(names), "".join(unlike_names[:1])))
    return result


def leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """All values of nested lists and dicts with their paths."""
    if isinstance(value, dict):
        return [leaf for name, each in value.items() for leaf in leaves(each, f"{key}/{name}")]
    if isinstance(value, list | tuple):
        return [leaf for i, each in enumerate(value) for leaf in leaves(each, f"{key}/{i}")]
    return [] if value is None else [(key, value)]


def _same(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        # as bytes: NaN equals itself, and 0.0 is not -0.0
        return a.dtype == b.dtype and a.shape == b.shape and _bytes(a) == _bytes(b)
    return bool(type(a) is type(b) and a == b)


def _bytes(tensor: Any) -> bytes:
    import torch

    data: bytes = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data


def _short(value: Any) -> str:
    if isinstance(value, str):
        value = float.fromhex(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = [float.fromhex(each) for each in value]
    return "nothing" if value is None else str(value)[:40]


def _trace(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.trace")


def _traced(folder: Path) -> list[str]:
    return ["--trainer.callbacks+", f"{{class_path: Trace, path: {_trace(folder)}}}"]


def _output(folder: Path) -> list[str]:
    return ["--output", str(folder), *_traced(folder)]


def _fit(arguments: list[str], prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
    """Runs ``fit`` in a forked process: the exit code (negative: the signal), and the last line that it said."""
    from lit_transformer.cli.main import main

    with tempfile.TemporaryFile("w+") as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                prepare()
                code = main(["fit", *arguments])
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()]
    return os.waitstatus_to_exitcode(status), lines[-1] if lines else ""


def _expect(outcome: tuple[int, str], code: int, what: str, folder: Path) -> None:
    if outcome[0] != code:
        line = outcome[1].removeprefix("lit-transformer: ")
        error = UserError if outcome[0] == 2 else LitTransformerError
        raise error(f"verify-resume: {what} ended with {outcome[0]} instead of {code}: {line}")


def _kill_after(step: int) -> None:
    """Makes this process die, as by a power cut, once it has traced this step."""
    from lit_transformer.training.trace import Trace

    traced = Trace.on_train_batch_end

    def then_die(self: Trace, trainer: Any, *rest: Any) -> None:
        traced(self, trainer, *rest)
        if trainer.global_step >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    Trace.on_train_batch_end = then_die  # type: ignore[method-assign, assignment]
