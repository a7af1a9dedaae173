"""What comes from strangers, or is simply wrong: checkpoints, recipes, data."""

import contextlib
import io
import statistics
import sys
from pathlib import Path

from soaks.table import Rows, command


@command
def hostile(folder: Path, scale: float) -> Rows:
    """Every hostile checkpoint with every verb that opens one, and hostile recipes, under an audit hook."""
    from tests.checkpoints import attacks

    few = None if scale >= 1 else max(3, int(60 * scale))
    (folder / "checkpoints").mkdir()
    (folder / "recipes").mkdir()
    ways = attacks.opening_verbs()
    files = list(attacks.attack(folder / "checkpoints", ways, few))
    recipes = attacks.in_process(lambda: list(attacks.attack_by_recipes(folder / "recipes", few)))
    print("verbs:", ", ".join(ways), file=sys.stderr)
    rows: Rows = [
        ("hostile files x ways to hand one in", f"{len({r['file'] for r in files})} x {len(ways)}", ">= 40"),
        ("of these run code when opened without care", len({r["file"] for r in files if r["dangerous"]}), "> 0"),
        ("hostile recipes", len(recipes), ">= 60"),
    ]
    for name, results in (("files", files), ("recipes", recipes)):
        tidy = [r for r in results if r["code"] in (0, 2) and "Traceback" not in r["said"]]
        for row in results:
            if row["fired"] or row["events"] or row not in tidy:
                print(row, file=sys.stderr)
        rows += [
            (f"{name}: executions", sum(r["fired"] for r in results), 0),
            (f"{name}: imports, processes, connections", sum(bool(r["events"]) for r in results), 0),
            (f"{name}: refused in one line, or unharmed", len(tidy), len(results)),
        ]
    return rows


@command
def recipes(folder: Path, scale: float) -> Rows:
    """500 generated malformed recipes: code 2, one line, no traceback, at most 3 s beyond start-up."""
    from tests.recipe.malformed import malformed
    from tests.recipe.refusals import LONGEST, refusals

    results = []
    for each in refusals(malformed(max(9, int(500 * scale))), folder):
        results.append(each)
        if not each.proper or each.work > LONGEST:
            said = (each.case.kind, each.case.name, each.code, round(each.work, 2), each.said)
            print(*said, sep=" | ", file=sys.stderr, flush=True)
        if len(results) % 25 == 0:
            print(len(results), "recipes", file=sys.stderr, flush=True)
    return [
        ("kinds of mistake", len({each.case.kind for each in results}), 9),
        ("code 2, one line, no traceback", sum(each.proper for each in results), len(results)),
        ("longest beyond start-up, s of computing", round(max(each.work for each in results), 2), f"<= {LONGEST:g}"),
        ("longest beyond start-up, s by the clock", round(max(each.seconds for each in results), 2), ""),
        ("median, s of computing", round(statistics.median(each.work for each in results), 2), ""),
    ]


@command
def data(folder: Path, scale: float) -> Rows:
    """200 and more generated malformed data files: one line with file and row, or a counted skip."""
    from tests.data.malformed import cleared, malformed_files, outcome

    cases = malformed_files()
    cases = cases[:: max(1, round(1 / scale))]
    wrong = 0
    for case in cases:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            problem = outcome(case, cleared(folder / "case"), said.getvalue)
        if problem:
            wrong += 1
            print(case.name, problem, sep=" | ", file=sys.stderr)
    skips = sum(case.skipped is not None for case in cases)
    return [
        ("malformed files", len(cases), ">= 200"),
        ("of these with faulty rows", sum(case.place is not None for case in cases), ""),
        ("of these with rows that are skipped and counted", skips, ""),
        ("one line with file and row, or a counted skip", len(cases) - wrong, len(cases)),
    ]
