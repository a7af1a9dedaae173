"""Commands in processes of their own, forked from this one, which has imported everything already."""

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TextIO

GRACE = 5.0
"""Seconds that ranks are given to end by themselves once one of them has failed."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        code: The exit code of the first process that failed, or 0; negative: the signal that ended it.
        said: The last line that this process wrote.
    """

    code: int
    said: str


def run_command(words: Sequence[str], ranks: int = 1) -> Outcome:
    """Runs ``lit-transformer`` with these arguments in ``ranks`` processes, started with the variables of ``torchrun``.

    When one of them fails the others, which wait for it, are ended.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(ranks)]
        port = _free_port()
        running = {_started(words, rank, ranks, port, files[rank]): rank for rank in range(ranks)}
        code, failed = _waited(running)
        return Outcome(code, _last_line(files[failed]))


def _started(words: Sequence[str], rank: int, ranks: int, port: int, said: TextIO) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 to the end
        _become(rank, ranks, port)
        from lit_transformer.cli.main import main

        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _become(rank: int, ranks: int, port: int) -> None:
    """This process as one of several: what torchrun tells its own."""
    import torch

    if ranks > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="lit-transformer",
        )  # fmt: skip
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))


def _waited(running: dict[int, int]) -> tuple[int, int]:
    """Code and rank of the first process that failed; (0, 0) when none did."""
    first: tuple[int, int] | None = None
    deadline = float("inf")
    try:
        while running:
            for child in list(running):
                done, status = os.waitpid(child, os.WNOHANG)
                if not done:
                    continue
                rank, code = running.pop(child), os.waitstatus_to_exitcode(status)
                if code and first is None:
                    first, deadline = (code, rank), time.monotonic() + GRACE
            if time.monotonic() > deadline:
                _end(running)
                deadline = float("inf")
            time.sleep(0.02)
    except BaseException:
        _end(running)
        for child in running:
            os.waitpid(child, 0)
        raise
    return first or (0, 0)


def _end(running: dict[int, int]) -> None:
    for child in running:
        os.kill(child, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _last_line(file: TextIO) -> str:
    file.seek(0)
    lines = [line for line in file.read().splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("lit-transformer: ")]
    return (own or lines or [""])[-1].removeprefix("lit-transformer: ")
