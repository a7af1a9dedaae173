"""The process of a rank, as the machine that it runs on sees it."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Peer:
    """A rank's process.

    Args:
        host: Its machine.
        pid: Its number there.
        begun: When it began, by the system's clock: numbers are given out again.
    """

    host: str
    pid: int
    begun: str

    @classmethod
    def this(cls) -> "Peer":
        """The process that asks."""
        return cls(socket.gethostname(), os.getpid(), process_state(os.getpid())[1])

    def state(self) -> tuple[str, int]:
        """What the system says of it on this machine: ``R``, ``S``, ``T`` (stopped) or ``Z``; and how it ended."""
        state, begun, code = process_state(self.pid)
        return (state, code) if begun == self.begun else ("Z", 0)

    def kill(self) -> None:
        """Ends it, if it is still there."""
        if self.begun and self.state()[0] != "Z":
            with_no_error(lambda: os.kill(self.pid, signal.SIGKILL))


def process_state(pid: int) -> tuple[str, str, int]:
    """State, time of the start and wait status of a process, from ``/proc``; ``Z`` where there is none.

    Without ``/proc`` (macOS) it is called running, and its start is not known.
    """
    if not Path("/proc/self/stat").exists():
        return "R", "", 0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "Z", "", 0
    return fields[0], fields[19], int(fields[49])


def ended_by(status: int) -> str:
    """How a process ended, by its wait status; 0 is also where the system does not say."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return (
        f"ended with exit code {os.WEXITSTATUS(status)}" if status else "died without a word, killed or out of memory"
    )


def with_no_error(work: Callable[[], Any]) -> None:
    """Calls, and lets go what the system or the store has against it."""
    with suppress(OSError, RuntimeError):
        work()
