"""Races whose options are sizes: a table to begin with, each value of which an option may replace."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.harness import ALLOCATOR, Options, Prepare, add_common, progress, publish, race


@dataclass(frozen=True)
class SizedRace:
    """One race of ``benchmark.py``: what it is called, its sizes and who runs.

    Args:
        name: The command, and the module of ``bench`` that has the contestants.
        title: What is measured, for the table.
        sizes: Named sizes; all of them have the same values.
        described: What each value is, by its name; what is not named has no option.
        contestants: Who can run.
        references: With whom everybody is compared, in the table's order.
        rounds: Rounds that are counted where the command line does not say.
        remarks: Lines below the table.
    """

    name: str
    title: str
    sizes: Mapping[str, Mapping[str, int]]
    described: Mapping[str, str]
    contestants: Mapping[str, Callable[[Options], Prepare]]
    references: Sequence[str]
    rounds: int = 7
    remarks: Sequence[str] = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The race's options, and itself as what the parser runs."""
        add_common(parser, rounds=self.rounds)
        parser.add_argument(
            "--size", choices=sorted(self.sizes), default="small", help="sizes to begin with (default: small)"
        )
        for name, what in self.described.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{what}, instead of the size's")
        parser.add_argument(
            "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is autocast (default: fp32)"
        )
        parser.add_argument(
            "--contestants",
            nargs="+",
            default=list(self.contestants),
            metavar="NAME",
            help=f"of {', '.join(self.contestants)}; {ALLOCATOR} behind a name sets the allocator (default: all)",
        )
        parser.set_defaults(run=self.run)

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the race and print its table."""
        if unknown := [n for n in arguments.contestants if n.removesuffix(ALLOCATOR) not in self.contestants]:
            progress(f"benchmark: unknown contestant {unknown[0]!r}; there are {', '.join(self.contestants)}")
            return 2
        options: Options = dict(self.sizes[arguments.size])
        given = {name: getattr(arguments, name) for name in self.described}
        options |= {name: value for name, value in given.items() if value is not None}
        options |= {"precision": arguments.precision, "threads": arguments.threads}
        contestants = race(self.name, arguments.contestants, options, arguments.rounds, arguments.steps, progress)
        title = f"{self.title}, " + ", ".join(f"{key} {value}" for key, value in options.items() if key != "threads")
        references = [name for name in self.references if name in arguments.contestants]
        return publish(arguments, title, options, contestants, references, self.remarks)
