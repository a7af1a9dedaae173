"""A long run with many saves."""

import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

from soaks.table import Rows, command


@command
def memory(folder: Path, scale: float) -> Rows:
    """A long run with many saves: memory, open files, stray files. Full length: 60 minutes, 200 saves or more."""
    import psutil
    from lightning.pytorch import Callback

    from lit_transformer.checkpoints import read
    from lit_transformer.training.ema import EMA
    from tests.training.tiny_run import Task, train

    seconds, process = 3600 * scale, psutil.Process()
    begun = time.monotonic()
    seen: list[tuple[int, int]] = []
    width = 400

    class Watch(Callback):
        saves = 0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if time.monotonic() - begun > seconds:
                trainer.should_stop = True

        def on_save_checkpoint(self, *_: Any) -> None:
            self.saves += 1
            seen.append((process.memory_info().rss, process.num_fds()))
            if self.saves % 10 == 0:
                read(folder / "checkpoints" / "last.ckpt")
            time.sleep(seconds / 900)  # hundreds of saves, on a machine that others use too

    original = Task.__init__
    Task.__init__ = lambda self, steps=10**9, w=width: original(self, steps, w)  # type: ignore[assignment, misc, method-assign]
    watch = Watch()
    try:
        train(
            folder, 10**8, callbacks=(watch, EMA(0.99)), every_n_steps=50, val_check_interval=250, limit_val_batches=1
        )
    finally:
        Task.__init__ = original  # type: ignore[method-assign]
    settled = seen[len(seen) // 5 :]
    first, last = (
        statistics.median(rss for rss, _ in part)
        for part in (settled[: len(settled) // 4], settled[-len(settled) // 4 :])
    )
    return [
        ("minutes", round((time.monotonic() - begun) / 60, 1), f">= {seconds / 60:g}"),
        ("saves", watch.saves, ">= 200"),
        ("growth of memory, %", round(100 * (last / first - 1), 2), "<= 2"),
        ("growth of open files", settled[-1][1] - settled[0][1], 0),
        ("stray files", len(os.listdir(folder / "checkpoints")) - 2, 0),
        ("largest memory, MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, ""),
    ]
