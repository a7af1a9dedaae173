"""Long forms of the reliability tests, one subcommand each; every one prints a table of what must be zero or equal.

    python scripts/soak.py list
    python scripts/soak.py kills signals nan --scale 0.1     a tenth of the full numbers
    python scripts/soak.py all

Small models on the CPU; processes are forked from one that has imported everything, so a hundred kills take minutes.
"""

import argparse
import contextlib
import io
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

# Before torch is imported: a forked process would wait for threads that only its parent has.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from soaks import costs, damage, killing, long_run, ranks, resuming, sharded, strangers  # noqa: E402, F401  each adds its commands
from soaks.table import COMMANDS, show  # noqa: E402


def main() -> int:
    """Runs the subcommands and prints their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="+", choices=[*COMMANDS, "all", "list"], metavar="COMMAND")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full numbers")
    parser.add_argument("--folder", help="where to work; left out: a temporary folder")
    options = parser.parse_args()
    if "list" in options.commands:
        for name, function in COMMANDS.items():
            print(f"{name:10} {(function.__doc__ or '').splitlines()[0]}")
        return 0
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lit_transformer").setLevel(logging.ERROR)
    failed = 0
    for name in COMMANDS if "all" in options.commands else options.commands:
        folder = Path(tempfile.mkdtemp(prefix=f"soak-{name}-", dir=options.folder))
        begun = time.monotonic()
        try:
            rows = COMMANDS[name](folder, options.scale)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        failed += show(name, rows, time.monotonic() - begun, options.scale)
    return 1 if failed else 0


if __name__ == "__main__":
    with contextlib.redirect_stderr(sys.stderr if sys.stderr else io.StringIO()):
        sys.exit(main())
