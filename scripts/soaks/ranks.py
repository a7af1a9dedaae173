"""Jobs of two ranks, one of which is killed, stopped or fails."""

import os
import random
import re
import socket
import time
from pathlib import Path

from soaks.table import Rows, command

TIMEOUT = 10.0


@command
def ranks(folder: Path, scale: float) -> Rows:
    """SIGKILL, SIGSTOP and an exception on a rank of DDP and FSDP2: the job ends in time, names it, and goes on."""
    import lit_transformer.cli.training  # noqa: F401 here, so that the processes need not import it anew
    from lit_transformer.checkpoints import find_newest
    from tests.cli.conftest import RECIPE
    from tests.cluster import faults

    draw = random.Random(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    for name in ("train", "validation", "test"):
        lines = [" ".join(draw.choice(words) for _ in range(12)) for _ in range(40)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "tiny.yaml").write_text(RECIPE)
    os.chdir(folder)
    times, rows = max(1, int(20 * scale)), []
    for strategy, overlay in faults.OVERLAYS.items():
        for fault in (faults.killed, faults.stopped, faults.raised):
            good, named, whole, longest, left, resumed = 0, 0, 0, 0.0, 0, 0
            for i in range(times):
                output = f"{strategy}-{fault.__name__}-{i}"
                options = ["--config", "tiny.yaml", "--config", overlay, "--trainer.rank_timeout", str(TIMEOUT),
                           "--trainer.logger", "false", "--trainer.validate_every", "2"]  # fmt: skip
                rank = i % 2
                ended = faults.job(folder, *options, "--output", output, fault=fault, rank=rank, limit=120)
                longest = max(longest, ended.seconds)
                wanted = 1 if fault is faults.raised else 3
                good += ended.codes[1 - rank] == wanted
                pattern = re.escape(f"lit-transformer: rank {rank} on {socket.gethostname()}")
                one_line = len(ended.own) == 1 and re.match(pattern, ended.own[0]) is not None
                named += one_line and not any("Traceback" in line for lines in ended.said for line in lines)
                if not one_line:
                    print(output, ended, flush=True)
                found = find_newest(folder / output)
                whole += found is not None and found.step == 2 and not found.skipped
                left += _left(folder)
                if i < 2:  # once after each rank
                    resumed += faults.job(folder, *options, "--output", output, "--resume").codes == [0, 0]
            name = f"{strategy}, {fault.__name__}"
            rows += [
                (f"{name}: ended with the right exit code", f"{good} of {times}", f"{times} of {times}"),
                (f"{name}: one line that names rank and host", f"{named} of {times}", f"{times} of {times}"),
                (f"{name}: seconds to the end, at most", round(longest, 1), f"<= {TIMEOUT + 10:g}"),
                (f"{name}: last checkpoint whole", f"{whole} of {times}", f"{times} of {times}"),
                (f"{name}: processes left", left, 0),
                (f"{name}: went on with --resume", resumed, min(2, times)),
            ]  # fmt: skip
            print(rows[-6:], flush=True)
    return rows


def _left(folder: Path) -> int:
    """Processes that still work in the folder, this one apart."""
    time.sleep(0.1)
    found = 0
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) != os.getpid():
            try:
                found += os.readlink(each / "cwd") == str(folder)
            except OSError:
                continue
    return found
