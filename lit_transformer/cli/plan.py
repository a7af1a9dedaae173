"""``lit-transformer plan``: what a recipe will need, before it is started."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from lit_transformer.cli.rehearsal import Rehearsal
    from lit_transformer.training.footprint import Memory
    from lit_transformer.training.layout import Layout


def run(argv: list[str]) -> int:
    """Runs the verb."""
    parser = OptionParser(
        "plan",
        "What a recipe will need: parameters by component, FLOPs per token, memory of each device by strategy and\n"
        "number of devices, size of a checkpoint, steps in an epoch, and time at a given utilisation. No weights are\n"
        "made: a step is run without its arithmetic. Tokenizer and tokens are prepared as for fit, and kept.\n"
        "Any --KEY VALUE of the recipe may follow, as with fit. With a strategy overlay, that strategy alone is shown.",
        "lit-transformer plan --config language_modeling/shakespeare_char --devices 1 2 8 --peak_flops 989e12",
    )
    parser.add_argument(
        "--config", "-c", action="append", required=True, metavar="RECIPE", help="recipe, then overlays"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="your package that it may name")
    parser.add_argument("--devices", type=int, nargs="+", metavar="N", help="numbers of devices (left out: the "
                        "recipe's, or 1, 2, 4 and 8 where it names no strategy)")  # fmt: skip
    parser.add_argument("--mfu", type=float, default=0.4, metavar="SHARE", help="share of the peak that is reached "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--peak_flops", type=float, metavar="FLOPS", help="of one device, in this precision, dense "
                        "(left out: that of the GPU in this machine)")  # fmt: skip
    options, rest = parser.parse_known_args(argv)
    _check(options)
    arguments = [word for recipe in options.config for word in ("--config", recipe)]
    arguments += [word for package in options.allow for word in ("--allow", package)]
    print(plan([*arguments, *rest], options.devices, options.mfu, options.peak_flops))
    return EXIT_DONE


def _check(options: argparse.Namespace) -> None:
    for number in options.devices or ():
        if number < 1:
            raise UserError(f"plan: --devices {number} must be at least 1")
    if not 0 < options.mfu <= 1:
        raise UserError(f"plan: --mfu {options.mfu} must lie between 0 and 1")
    if options.peak_flops is not None and not options.peak_flops > 0:
        raise UserError(f"plan: --peak_flops {options.peak_flops} must be above 0")


@dataclass(frozen=True)
class Row:
    """A strategy on a number of devices.

    Args:
        layout: How the run is spread.
        memory: Of each device; None: it cannot be spread so.
        steps: Optimizer steps in an epoch; None: the data have no end.
        tokens: Places for tokens that a step computes, on all devices.
        seconds: Of the whole run; None: nobody said how fast a device is.
        refusal: Why it cannot be spread so.
    """

    layout: "Layout"
    memory: "Memory | None"
    steps: int | None = None
    tokens: int = 0
    seconds: float | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Plan:
    """What a recipe will need.

    Args:
        parameters: Number by component.
        flops_per_token: Forward and backward.
        checkpoint: Bytes of a checkpoint.
        max_steps: Optimizer steps of the run.
        precision: Of the run.
        rows: By strategy and number of devices.
        speed: What the times rest on, in words.
    """

    parameters: dict[str, int]
    flops_per_token: float
    checkpoint: int
    max_steps: int
    precision: str
    rows: Sequence[Row]
    speed: str

    def __str__(self) -> str:
        total = sum(self.parameters.values())
        width = max(map(len, [*self.parameters, "FLOPs per token"]))
        lines = [f"{'parameters':<{width}}  {total:>16,}"]
        lines += [f"  {name:<{width - 2}}  {count:>16,}" for name, count in self.parameters.items()]
        lines += [
            f"{'FLOPs per token':<{width}}  {self.flops_per_token:>16.4g}",
            f"{'checkpoint':<{width}}  {_megabytes(self.checkpoint):>16} MB",
            f"{'optimizer steps':<{width}}  {self.max_steps:>16,}",
            "",
            f"memory of each device in MB, precision {self.precision}; the program itself comes on top",
        ]
        names = ("weights", "gradients", "optimizer", "average", "copies", "logits", "activations")
        head = ["strategy", "devices", *names, "total", "host", "steps/epoch", "tokens/step", "time"]
        table = [head, *([str(cell) for cell in _cells(row, names)] for row in self.rows)]
        shown = [i for i, name in enumerate(head) if name not in ("average", "copies", "host") or _any(table, i)]
        table = [[line[i] for i in shown] if len(line) == len(head) else line for line in table]
        whole = [line for line in table if len(line) == len(shown)]  # what is refused has words for numbers
        widths = [max(len(line[i]) for line in (table if i < 2 else whole)) for i in range(len(shown))]
        for line in table:
            if len(line) == len(shown):
                first, *others = (f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
                lines.append("  ".join([f"{first.strip():<{widths[0]}}", *others]))
            else:
                lines.append(f"{line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]}")
        return "\n".join([*lines, "", self.speed])


def plan(
    fit_arguments: Sequence[str],
    devices: Sequence[int] | None = None,
    mfu: float = 0.4,
    peak_flops: float | None = None,
) -> Plan:
    """What a recipe will need.

    Args:
        fit_arguments: What ``lit-transformer fit`` is given: ``["--config", "quickstart", ...]``.
        devices: Numbers of devices; left out: the recipe's, or several where it names no strategy.
        mfu: Share of the peak that is reached.
        peak_flops: Peak of one device in FLOP/s; left out: the one that is here, if it is known.

    Raises:
        UserError: The recipe is wrong.
    """
    from lit_transformer.cli.arguments import parse_arguments
    from lit_transformer.cli.rehearsal import ELSEWHERE, rehearse_elsewhere
    from lit_transformer.cli.resolution import Resolution
    from lit_transformer.cli.training import TrainingCLI, locating, quiet
    from lit_transformer.training import planning
    from lit_transformer.training.footprint import checkpoint_bytes, spread_memory
    from lit_transformer.training.layout import Layout, layout_of

    quiet()
    arguments = parse_arguments("fit", list(fit_arguments))
    resolution = Resolution(arguments.recipe(), arguments.allow)
    with locating(resolution):
        rehearsal = rehearse_elsewhere(resolution)
    arguments.overrides += [(f"trainer.{name}", str(value)) for name, value in ELSEWHERE.items()]
    resolution = Resolution(arguments.recipe(), arguments.allow)
    with locating(resolution):
        cli = TrainingCLI(resolution, "validate")
    task, data = cli.model, cli.datamodule
    trainer, callbacks = rehearsal.trainer, rehearsal.callbacks
    precision, max_steps = str(trainer.get("precision") or "32-true"), int(trainer["max_steps"])
    accumulate = int(trainer.get("accumulate_grad_batches") or 1)
    planning.prepare(task, callbacks)

    def traced(work: planning.Work) -> "Memory":
        if work.shapes not in found:
            found[work.shapes] = planning.traced_memory(task, work.batch, accumulate, precision, callbacks)
        return found[work.shapes]

    found: dict[Any, Memory] = {}
    work = planning.work_of(data, 1, accumulate)
    alone = traced(work)
    flops = task.network.flops_per_token(work.batch.tokens.shape[-1])
    peak = peak_flops or _peak(precision)
    rows = []
    for name, strategy, number in _ways(rehearsal, devices):
        try:
            layout = layout_of(strategy, name, number)
            rehearsal.check(strategy, number)
        except UserError as error:
            rows.append(Row(Layout(name, data=number), None, refusal=str(error)))
            continue
        work = planning.work_of(data, layout.data, accumulate)
        memory = spread_memory(traced(work), task, layout, work.batch.tokens.numel())
        seconds = None if peak is None else max_steps * work.tokens * flops / (peak * mfu * number)
        rows.append(Row(layout, memory, work.steps, work.tokens, seconds))
    speed = "time: give --peak_flops" if peak is None else f"time at {mfu:.0%} of {peak:.4g} FLOP/s a device"
    counts = planning.parameters_by_part(task)
    return Plan(counts, flops, checkpoint_bytes(alone), max_steps, precision, rows, speed)


def _ways(rehearsal: "Rehearsal", devices: Sequence[int] | None) -> list[tuple[str, Any, int]]:
    """The recipe's strategy, or all: names, strategies and numbers of devices."""
    from lit_transformer.training.planning import layouts

    strategy, trainer = rehearsal.strategy, rehearsal.trainer
    if strategy == "auto":
        return layouts(devices or (1, 2, 4, 8))
    own, nodes = trainer.get("devices"), int(trainer.get("num_nodes") or 1)
    own = str(len(own) if isinstance(own, list) else own)
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    least = getattr(strategy, "tensor_parallel", 1)
    return [(name, strategy, number) for number in devices or [int(own) * nodes if own.isdigit() else least]]


def _peak(precision: str) -> float | None:
    import torch

    from lit_transformer.training.callbacks.throughput import peak_flops

    return peak_flops(torch.device("cuda", 0), precision) if torch.cuda.is_available() else None


def _cells(row: Row, names: Sequence[str]) -> list[Any]:
    if row.memory is None:
        return [row.layout.name, row.layout.devices, f"not possible: {row.refusal}"]
    parts = [_megabytes(getattr(row.memory, name)) for name in names]
    steps = "-" if row.steps is None else f"{row.steps:,}"
    time = "-" if row.seconds is None else _duration(row.seconds)
    total, host = _megabytes(row.memory.total), _megabytes(row.memory.host)
    return [row.layout.name, row.layout.devices, *parts, total, host, steps, f"{row.tokens:,}", time]


def _any(table: list[list[str]], column: int) -> bool:
    return any(len(line) > column + 1 and line[column] not in ("0.0", "-") for line in table[1:])


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _duration(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"
