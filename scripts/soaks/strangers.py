"""Strangers' checkpoints."""

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
