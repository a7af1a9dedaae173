"""A job on several ranks ends, and says why, when one of them is gone."""

import atexit
import itertools
import json
import logging
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import subprocess_script
from torch.distributed import DistError, distributed_c10d

from lit_transformer.errors import Diverged, EnvironmentFault, LitTransformerError, Preempted
from lit_transformer.training import watching
from lit_transformer.training.peers import Peer
from lit_transformer.training.watching import RankFailed, Watch

EXCHANGE = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "ProcessGroup",
            "Timed out waiting", "pair closure", "Socket Timeout", "TCPStore", "watchdog")  # fmt: skip
"""What errors of an exchange with other ranks speak of, where their class does not tell."""

# Lightning's own would kill this process, too, before anything could be said.
subprocess_script._launch_process_observer = watching.observe  # type: ignore[assignment]


class Ranks(Callback):
    """Ends a run on several ranks, within ``trainer.rank_timeout``, when one of them died, is stopped or fails.

    One line names the rank and its machine, on each machine once; errors of the other ranks, which are its
    consequences, stay unsaid. The exit code is that of the rank that failed, or 3. The last checkpoint is whole:
    ``--resume`` goes on from it. A rank that is stopped is ended, so that nothing is left over.
    """

    def __init__(self) -> None:
        self.watch: Watch | None = None

    def start(self, trainer: Trainer) -> None:
        """Begins to watch; all ranks take part, once they have met."""
        if self.watch is not None or trainer.world_size < 2:
            return
        peers: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(peers, Peer.this())
        common: Any = distributed_c10d._get_default_store()
        store = distributed_c10d.PrefixStore(name_of(peers), common.clone())
        timeout = float(getattr(trainer, "rank_timeout", 600.0))
        limit_waiting(timeout)
        self.watch = Watch(trainer.global_rank, peers, store, timeout, _say)
        torch.distributed.barrier()
        self.watch.start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begins to watch, if that has not begun before."""
        if stage == "fit":
            self.start(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Notes how far this rank is."""
        if self.watch is not None:
            self.watch.progress = trainer.global_step + 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No rank goes before all are done."""
        if self.watch is not None:
            trainer.strategy.barrier()
            self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finds out whether it is this rank that failed, and tells the others if so."""
        watch, self.watch = self.watch, None
        if watch is None:
            return
        if of_exchange(exception):
            cause = watch.broken()
            if cause is not None:
                failed = RankFailed(cause)
                failed.quiet = watch.told or not watch.speaks(cause)
                exception.consequence_of = failed  # type: ignore[attr-defined]
                # A thread that waits in the store for a lost rank would abort the interpreter while it ends.
                atexit.register(watching.end, failed.exit_code)
            return
        what, code = described(exception)
        cause = watch.failed(what, code)
        where = f"rank {watch.rank} on {watch.peers[watch.rank].host}"
        if cause.rank != watch.rank and cause.what == what:
            exception.quiet = True  # type: ignore[attr-defined]
        elif not isinstance(exception, Preempted | Diverged):
            exception.said_by = where  # type: ignore[attr-defined]
        if cause.rank == watch.rank:
            tell_torchrun(f"{where} {what}")

    def _stop(self) -> None:
        if self.watch is not None:
            self.watch.stop()
            self.watch = None


def limit_waiting(seconds: float) -> None:
    """Sets how long an exchange may take, in all groups of ranks: those of a device mesh have another limit."""
    for group in list(distributed_c10d._world.pg_map):
        with suppress(RuntimeError, ValueError, AttributeError):
            distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


_COUNT = itertools.count()


def name_of(peers: list[Peer]) -> str:
    """A name that two runs in the same processes do not share."""
    return f"ranks-{peers[0].pid}-{next(_COUNT)}"


def of_exchange(error: BaseException) -> bool:
    """Whether an error says no more than that an exchange with other ranks failed."""
    if isinstance(error, LitTransformerError):
        return isinstance(error, RankFailed)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError | OSError) and any(word in str(error) for word in EXCHANGE)
    )


def unreachable(rank: int, error: BaseException) -> EnvironmentFault:
    """What a rank says that has lost the others, or never met them, and does not know why."""
    first = " ".join(str(error).split())[:200]
    return EnvironmentFault(f"rank {rank} on {socket.gethostname()} cannot reach the other ranks and knows no reason; "
                            f"they may say it: {first}")  # fmt: skip


def described(error: BaseException) -> tuple[str, int]:
    """An error as others tell it, and the exit code that it gives."""
    first = " ".join(str(error).split())[:300]
    if isinstance(error, LitTransformerError):
        return f"failed: {first}", error.exit_code
    return f"failed: {type(error).__name__}: {first}", 130 if isinstance(error, KeyboardInterrupt) else 1


def tell_torchrun(line: str) -> None:
    """Writes what torchrun shows of the rank that failed first."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        report = {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump(report, file)


def _say(line: str) -> None:
    print(f"lit-transformer: {line}", file=sys.stderr, flush=True)
    logging.getLogger("lit_transformer.run").info("ended: %s", line)
