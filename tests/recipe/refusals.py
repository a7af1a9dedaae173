"""What the program makes of a malformed recipe, in a process of its own."""

import contextlib
import io
import math
import os
import pickle
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.recipe.malformed import Malformed

LONGEST = 3.0
"""Seconds that a refusal may take beyond the start-up of the program."""


@dataclass(frozen=True)
class Refusal:
    """What was said.

    Args:
        case: The mistake.
        code: Exit code; -9 where it had to be stopped.
        said: Standard error.
        seconds: From the call to its end; start-up is not in it.
        work: The same in seconds of computing, which other processes do not lengthen.
    """

    case: Malformed
    code: int
    said: str
    seconds: float
    work: float

    @property
    def lines(self) -> list[str]:
        """What was said, without what Lightning says about the hardware."""
        return [line for line in self.said.splitlines() if line.strip()]

    @property
    def proper(self) -> bool:
        """Code 2, one line that begins with the program's name, no traceback."""
        return self.code == 2 and len(self.lines) == 1 and self.lines[0].startswith("lit-transformer: ")


def refusals(cases: Iterable[Malformed], folder: Path) -> Iterator[Refusal]:
    """Runs ``fit`` on each, in forks of this process, which has imported everything; caches are empty."""
    import lit_transformer.cli.training  # noqa: F401
    from lit_transformer.recipe.building import TRAINING_ROOMS, import_rooms

    import_rooms(TRAINING_ROOMS)
    for case in cases:
        where = Path(tempfile.mkdtemp(dir=folder))
        for name, content in case.files.items():
            (where / name).write_bytes(content)
        yield _run(case, where)
        shutil.rmtree(where, ignore_errors=True)


def _run(case: Malformed, where: Path) -> Refusal:
    result = where / "result"
    child = os.fork()
    if child == 0:
        try:
            os.chdir(where)
            os.environ["LIT_TRANSFORMER_CACHE"] = str(where / "cache")
            signal.setitimer(signal.ITIMER_VIRTUAL, 30)  # of computing: then it trains
            said = io.StringIO()
            begun, worked = time.perf_counter(), time.process_time()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                from lit_transformer.cli.main import main

                code = main(["fit", *case.argv])
            spent = time.perf_counter() - begun, time.process_time() - worked
            result.write_bytes(pickle.dumps((code, said.getvalue(), *spent)))
        finally:
            os._exit(0)
    begun = time.perf_counter()
    os.waitpid(child, 0)
    if result.exists():
        return Refusal(case, *pickle.loads(result.read_bytes()))
    return Refusal(case, -9, "", time.perf_counter() - begun, math.inf)
