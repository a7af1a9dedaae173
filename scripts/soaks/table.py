"""What a long test is: a function of a folder and a scale that returns rows of what was measured and what must be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Rows = list[tuple[str, Any, Any]]  # what, measured, wanted

COMMANDS: dict[str, Callable[[Path, float], Rows]] = {}


def command(function: Callable[[Path, float], Rows]) -> Callable[[Path, float], Rows]:
    """Makes a function a subcommand."""
    COMMANDS[function.__name__.rstrip("_")] = function
    return function


def show(name: str, rows: Rows, seconds: float, scale: float) -> int:
    """Prints a table; the number of rows that are not as they must be."""
    failed = 0
    print(f"\n{name} ({seconds:.0f} s, scale {scale:g})")
    for what, measured, wanted in rows:
        verdict = _verdict(measured, wanted)
        failed += verdict == "FAILED"
        print(f"  {what:<66} {measured!s:>14}   {wanted!s:<14} {verdict}".rstrip(), flush=True)
    return failed


def _verdict(measured: Any, wanted: Any) -> str:
    if isinstance(wanted, str):
        for sign, holds in (("<= ", lambda a, b: a <= b), (">= ", lambda a, b: a >= b), ("> ", lambda a, b: a > b)):
            if wanted.startswith(sign) and isinstance(measured, int | float):
                return "ok" if holds(measured, float(wanted[len(sign) :])) else "FAILED"
        if " of " not in wanted:
            return ""
    return "ok" if measured == wanted else "FAILED"
