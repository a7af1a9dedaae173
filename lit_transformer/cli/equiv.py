"""``lit-transformer equiv``: prove, for a recipe of the user's, that the way it is computed changes nothing."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.processes import Outcome, run_command
from lit_transformer.errors import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_USER, LitTransformerError, UserError
from lit_transformer.recipe.suggest import hint

if TYPE_CHECKING:
    from lit_transformer.training.curve import Step

EXIT_DIFFERENT = 1

LEAST = 1e-3
"""Share of the whole gradient below which a parameter's own is compared with that share."""


def run(argv: list[str]) -> int:
    """Runs the verb."""
    parser = OptionParser(
        "equiv",
        "Train a recipe for some steps in one process, a whole batch at once, and again in every other way: in\n"
        "smaller batches (accumulation), unpacked, recomputed, compiled, and on two processes with DDP, FSDP2 and\n"
        "tensor parallelism. Each must give the same losses and gradients at the same global batch. Dropout is off,\n"
        "and rows are made uneven in length. Exit code 0: equal; 1: one differs; 2: nothing could be compared.\n"
        "Any --KEY VALUE of the recipe may follow, as with fit.",
        "lit-transformer equiv --config quickstart --config overlays/tiny --model.optimizer torch.optim.AdamW",
    )
    parser.add_argument(
        "--config", "-c", action="append", required=True, metavar="RECIPE", help="recipe, then overlays"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="your package that it may name")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of each (default: 8)")
    parser.add_argument("--arm", action="append", metavar="NAME", help=f"only this one; may be repeated: {_names()}")
    options, rest = parser.parse_known_args(argv)
    arguments = [word for recipe in options.config for word in ("--config", recipe)]
    arguments += [word for package in options.allow for word in ("--allow", package)]
    report = equivalence([*arguments, *rest], steps=options.steps, arms=_chosen(options))
    print(report)
    if not any(each.compared for each in report.results):
        raise UserError(f"equiv: nothing could be compared; {report.results[0].why if report.results else ''}")
    return EXIT_DONE if report.equal else EXIT_DIFFERENT


@dataclass(frozen=True)
class Tolerance:
    """How far two curves may be apart that differ in the order of additions alone.

    Args:
        loss: Relative difference of losses.
        gradient: Of a parameter's gradient's length, relative to it or to ``LEAST`` of the whole gradient.
    """

    loss: float
    gradient: float


TOLERANCES = {
    "64": Tolerance(1e-10, 1e-8),
    "32": Tolerance(1e-4, 1e-2),
    "16": Tolerance(1e-2, 0.1),
    "bf16": Tolerance(2e-2, 0.2),
}
"""By the precision's number of bits; over a few steps, in which rounding errors grow."""


@dataclass(frozen=True)
class Arm:
    """One way to compute.

    Args:
        name: What it is called.
        words: What ``fit`` is given beside.
        ranks: Number of processes.
        refusal: Why it cannot run, where that is known before.
    """

    name: str
    words: Sequence[str] = ()
    ranks: int = 1
    refusal: str = ""


@dataclass(frozen=True)
class Result:
    """How an arm compares.

    Args:
        arm: Its name.
        verdict: ``equal``, ``DIFFERENT`` or ``not run``.
        loss: Largest relative difference of the losses.
        gradient: Largest difference of gradients.
        why: What differs first, or why it was not run.
    """

    arm: str
    verdict: str
    loss: float | None = None
    gradient: float | None = None
    why: str = ""

    @property
    def compared(self) -> bool:
        """Whether it ran."""
        return self.loss is not None


@dataclass(frozen=True)
class Report:
    """What was compared.

    Args:
        story: What with.
        tolerance: What was allowed.
        results: Arm by arm.
        notes: What else there is to know.
    """

    story: str
    tolerance: Tolerance
    results: Sequence[Result] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def equal(self) -> bool:
        """Whether nothing differs and something was compared."""
        return any(each.compared for each in self.results) and all(each.verdict != "DIFFERENT" for each in self.results)

    def __str__(self) -> str:
        lines = [self.story, *self.notes]
        lines.append(f"{'arm':<20}{'largest difference of':<34}")
        lines.append(f"{'':<20}{'loss':<16}{'gradient':<16}verdict")
        allowed = f"{'allowed':<20}{f'{self.tolerance.loss:.1e}':<16}{f'{self.tolerance.gradient:.1e}':<16}"
        lines.append(allowed.rstrip())
        for each in self.results:
            loss = "-" if each.loss is None else f"{each.loss:.1e}"
            gradient = "-" if each.gradient is None else f"{each.gradient:.1e}"
            why = f": {each.why}" if each.why else ""
            lines.append(f"{each.arm:<20}{loss:<16}{gradient:<16}{each.verdict}{why}")
        ran = [each for each in self.results if each.compared]
        bad = [each.arm for each in self.results if each.verdict == "DIFFERENT"]
        good = f"all {len(ran)} that ran are equal" if ran else "nothing was compared"
        lines.append(f"{len(bad)} DIFFERENT: {', '.join(bad)}" if bad else good)
        return "\n".join(lines)


def equivalence(fit_arguments: Sequence[str], steps: int = 8, arms: Sequence[str] | None = None) -> Report:
    """Trains a recipe in every way, each in processes of its own, and compares.

    Args:
        fit_arguments: What ``lit-transformer fit`` is given: ``["--config", "quickstart", ...]``.
        steps: Optimizer steps.
        arms: Names of those that are wanted; left out: all.

    Raises:
        UserError: The recipe does not run at all.
    """
    if steps < 1:
        raise UserError(f"equiv: --steps {steps} must be at least 1")
    recipe = _resolved(fit_arguments)
    whole, ways = _ways(recipe)
    precision = str(recipe["trainer"].get("precision") or "32-true")
    tolerance = TOLERANCES[precision.partition("-")[0]]
    with tempfile.TemporaryDirectory(prefix="equiv-") as folder:
        common = [*fit_arguments, *_settings(steps, recipe)]
        reference, outcome = _curve(Path(folder), Arm("single process", whole), common)
        if reference is None:
            error = UserError if outcome.code == EXIT_USER else LitTransformerError
            raise error(f"equiv: the single process ended with {outcome.code}: {outcome.said}")
        results = []
        for arm in ways:
            if arms is None or arm.name in arms:
                print(f"equiv: {arm.name} ...", file=sys.stderr)
                results.append(_compared(Path(folder), arm, [*common, *whole], reference, tolerance))
    tokens = sum(step.tokens for step in reference)
    story = f"{steps} steps, {tokens:,} target tokens, precision {precision}, against one process with whole batches"
    notes = ["random numbers are drawn beside dropout: arms that draw them in another order differ"]
    return Report(story, tolerance, tuple(results), notes if any(step.draws for step in reference) else ())


def compare(reference: "Sequence[Step]", curve: "Sequence[Step]", tolerance: Tolerance, arm: str = "") -> Result:
    """Two curves."""
    loss = gradient = 0.0
    first = ""
    for number, (one, other) in enumerate(zip(reference, curve, strict=True), 1):
        off = _apart(other.loss, one.loss)
        loss, before = max(loss, off), first
        if off > tolerance.loss:
            first = first or f"step {number}: loss {other.loss:.6g} against {one.loss:.6g}"
        floor = LEAST * sum(value**2 for value in one.gradients.values()) ** 0.5
        for name in sorted(one.gradients.keys() | other.gradients.keys()):
            a, b = one.gradients.get(name, 0.0), other.gradients.get(name, 0.0)
            off = _apart(b, a, floor)
            gradient = max(gradient, off)
            if off > tolerance.gradient:
                first = first or f"step {number}: gradient of {name} {b:.6g} against {a:.6g}"
        if one.tokens != other.tokens:
            first = before or f"step {number}: {other.tokens} target tokens against {one.tokens}"
        elif one.samples != other.samples:
            first = before or f"step {number}: other samples"
    return Result(arm, "DIFFERENT" if first else "equal", loss, gradient, first)


def _apart(value: float, reference: float, floor: float = 1e-12) -> float:
    off = abs(value - reference) / max(abs(reference), floor)
    return off if off == off else float("inf")


def _compared(
    folder: Path, arm: Arm, common: Sequence[str], reference: "Sequence[Step]", tolerance: Tolerance
) -> Result:
    if arm.refusal:
        return Result(arm.name, "not run", why=arm.refusal)
    curve, outcome = _curve(folder, arm, common)
    if curve is not None and len(curve) == len(reference):
        return compare(reference, curve, tolerance, arm.name)
    if outcome.code in (EXIT_USER, EXIT_ENVIRONMENT):
        return Result(arm.name, "not run", why=outcome.said)
    # It began and did not end as it should: nothing that could be called equal.
    return Result(arm.name, "DIFFERENT", why=f"ended with {outcome.code}: {outcome.said}")


def _curve(folder: Path, arm: Arm, common: Sequence[str]) -> "tuple[list[Step] | None, Outcome]":
    from lit_transformer.training.curve import Curve

    name = arm.name.replace(" ", "-")
    path = folder / f"{name}.curve"
    added = f"{{class_path: Curve, path: {path}}}"
    words = ["fit", *common, *arm.words, "--trainer.callbacks+", added, "--output", str(folder / name)]
    outcome = run_command(words, arm.ranks)
    return (None if outcome.code else Curve.read(path)), outcome


def _resolved(fit_arguments: Sequence[str]) -> dict[str, Any]:
    """The recipe with all its defaults."""
    from lit_transformer.cli.arguments import parse_arguments
    from lit_transformer.cli.resolution import Resolution
    from lit_transformer.cli.training import TrainingCLI, quiet

    quiet()
    arguments = parse_arguments("fit", list(fit_arguments))
    if arguments.resume or arguments.init_from or arguments.output:
        raise UserError("equiv: every arm begins anew, from the recipe's weights, in a folder of its own")
    recipe: dict[str, Any] = TrainingCLI(Resolution(arguments.recipe(), arguments.allow)).recipe
    return recipe


SAVING = ("Checkpointing", "ModelCheckpoint", "EarlyStopping", "EMA")
"""Callbacks that have nothing to do where nothing is validated or saved."""


def _settings(steps: int, recipe: dict[str, Any]) -> list[str]:
    """What all arms have in common: nothing but training."""
    values = {
        "max_steps": steps, "limit_val_batches": 0, "num_sanity_val_steps": 0, "logger": "false",
        "enable_checkpointing": "false", "enable_progress_bar": "false", "log_every_n_steps": 1, "num_nodes": 1,
    }  # fmt: skip
    words = [word for key, value in values.items() for word in (f"--trainer.{key}", str(value))]
    callbacks = list(_list(recipe["trainer"].get("callbacks")))
    kept = [each for each in callbacks if str(each["class_path"]).rpartition(".")[2] not in SAVING]
    if len(kept) < len(callbacks):
        words += ["--trainer.callbacks", json.dumps(kept)]
    return [*words, "--trainer.callbacks+", "NoChance", "--trainer.callbacks+", "UnevenTargets"]


SHARDED = "{class_path: Sharded, tensor_parallel_size: %d}"
ZERO = "{class_path: ZeRO, stage: %d}"
NAMES = (
    "accumulation", "packing", "recompute", "compile", "ddp 2", "fsdp2 2", "tensor parallel 2", "zero1 2", "zero2 2",
    "zero3 2", "context parallel 2",
    "expert parallel 2",
)  # fmt: skip


def _ways(recipe: dict[str, Any]) -> tuple[list[str], list[Arm]]:
    """What the single process is given, and the arms; each overrides that."""
    data, trainer = recipe["data"]["init_args"], recipe["trainer"]
    alone = ["--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.accumulate_grad_batches", "1"]
    cut = ["--trainer.callbacks+", "CutBatches"]
    refusal = ""
    rows = data.get("batch_size")
    if isinstance(rows, dict):  # of all devices together
        rows = rows["init_args"].get("rows")
    if isinstance(rows, int):
        rows += rows % 2  # a batch of one row has no halves
        alone += ["--data.batch_size", str(rows)]
        cut = ["--data.batch_size", str(rows // 2)]
    elif "batches" not in data:
        refusal = "the data have neither batch_size nor batches to divide"
    here = [callback["class_path"].rpartition(".")[2] for callback in _list(trainer.get("callbacks"))]
    two = ["--trainer.devices", "2", "--trainer.strategy"]
    has = "the recipe has it already: take it out to compare"
    return alone, [
        Arm("accumulation", [*cut, "--trainer.accumulate_grad_batches", "2"], refusal=refusal),
        Arm("packing", ["--trainer.callbacks+", "UnpackedDocuments"]),
        Arm("recompute", ["--trainer.callbacks+", "Recompute"], refusal=has if _recomputes(here) else ""),
        Arm("compile", ["--trainer.callbacks+", "Compile"], refusal=has if "Compile" in here else ""),
        Arm("ddp 2", [*cut, *two, "ddp"], 2, refusal),
        Arm("fsdp2 2", [*cut, *two, SHARDED % 1], 2, refusal),
        Arm("tensor parallel 2", [*two, SHARDED % 2], 2),
        *(Arm(f"zero{stage} 2", [*cut, *two, ZERO % stage], 2, refusal) for stage in (1, 2, 3)),
        Arm("expert parallel 2", [*cut, *two, "ExpertParallel"], 2, refusal or _no_experts(recipe)),
        Arm("context parallel 2", [*two, "{class_path: ContextParallel, size: 2}"], 2),
    ]


def _no_experts(recipe: dict[str, Any]) -> str:
    has = "MixtureOfExperts" in json.dumps(recipe["model"], default=str)
    return "" if has else "the recipe has no mixture of experts"


def _recomputes(names: Sequence[str]) -> bool:
    return any(name in ("Recompute", "SelectiveRecompute") for name in names)


def _list(value: Any) -> Iterator[dict[str, Any]]:
    yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict))


def _chosen(options: argparse.Namespace) -> list[str] | None:
    for name in options.arm or ():
        if name not in NAMES:
            raise UserError(f"equiv: unknown arm '{name}'{hint(name, list(NAMES), 'arms')}")
    chosen: list[str] | None = options.arm
    return chosen


def _names() -> str:
    return ", ".join(NAMES)
