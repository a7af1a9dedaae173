"""Writes recipes/SUPPORT.md, the matrix of what goes with what, from a run of its tests.

example: python scripts/support.py
"""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "recipes" / "SUPPORT.md"
DEVICES = ROOT / "scripts" / "devices.md"
"""What ran on which devices, which no test of one machine can find out."""


class Recorder:
    """Collects what the tests found out."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, dict[str, dict[str, str]]]] = {"kernel": {}, "architecture": {}}

    def pytest_configure(self, config: pytest.Config) -> None:
        """Called by pytest at the start: every mask is to be tried, not a choice of them."""
        config.whole_matrix = True  # type: ignore[attr-defined]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each test."""
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == "support":
                    kind, column, row, verdicts = json.loads(str(value))
                    self.found[kind].setdefault(row, {})[column] = verdicts


class Notes:
    """Reasons, numbered as they come up."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """The number of a reason."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def cell(verdicts: dict[str, str], notes: Notes) -> str:
    """One cell: all masks, or which not and why."""
    answers = {"yes", "with Causal"}
    refused = {mask: text for mask, text in verdicts.items() if text not in answers}
    if not refused:
        return "all"
    reasons = {notes.number(text.partition(": ")[2] or text) for text in refused.values()}
    marks = "".join(f"<sup>{number}</sup>" for number in sorted(reasons))
    return f"no{marks}" if len(refused) == len(verdicts) else f"all but {', '.join(sorted(refused))}{marks}"


def table(found: dict[str, dict[str, dict[str, str]]], notes: Notes) -> list[str]:
    """Rows are positions."""
    columns = sorted({column for row in found.values() for column in row})
    lines = ["| position | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for position in sorted(found):
        cells = [cell(found[position][column], notes) if column in found[position] else "-" for column in columns]
        lines.append(f"| {position} | " + " | ".join(cells) + " |")
    return lines


def page(recorder: Recorder) -> str:
    """The whole page."""
    notes = Notes()
    kernels, networks = recorder.found["kernel"], recorder.found["architecture"]
    masks = sorted({mask for row in kernels.values() for column in row.values() for mask in column})
    wrapped = sorted({
        mask for row in networks.values() for column in row.values() for mask, text in column.items()
        if text == "with Causal"
    })  # fmt: skip
    lines = [
        "# What goes with what", "",
        "Written by `scripts/support.py` from a run of `tests/blocks/test_support.py`; not to be edited.", "",
        "\"all\": with every mask, forward and backward as the eager kernel in float64. \"no\": refused, with one line "
        "that says why, when the network is built.", "",
        f"Masks: {', '.join(masks)}, and any of them combined with And and Or.", "",
        "## Positions and kernels", "",
        "In float32 with every mask, and in float64 and bfloat16 with two of them.", "",
        *table(kernels, notes), "",
        "## Positions and architectures", "",
        "In float32, with the kernel that the position needs. Kernels and architectures do not know of each other: a "
        "pair is supported where both tables say so.", "",
        *table(networks, notes), "",
    ]  # fmt: skip
    if wrapped:
        lines += [f"A decoder takes {', '.join(wrapped)} inside `And([Causal, ...])` only: alone they show it the "
                  "tokens that it is to predict, which is refused.", ""]  # fmt: skip
    lines += [f"<sup>{i}</sup> {text}  " for i, text in enumerate(notes.texts, 1)]
    return "\n".join(lines).rstrip() + "\n\n" + DEVICES.read_text(encoding="utf-8")


def main() -> int:
    """Runs the tests and writes the page, unless one failed."""
    recorder = Recorder()
    tests = str(ROOT / "tests" / "blocks" / "test_support.py")
    options = ["-q", "-p", "no:cacheprovider", "-k", "not page", "--rootdir", str(ROOT)]
    code = pytest.main([*options, tests], plugins=[recorder])
    if code:
        print("support: a test failed, and recipes/SUPPORT.md stays as it was", file=sys.stderr)
        return int(code)
    PAGE.write_text(page(recorder), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
