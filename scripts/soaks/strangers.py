"""Strangers' checkpoints."""

import sys
from pathlib import Path

from soaks.table import Rows, command


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
