"""Processes that are forked from this one: what is imported is imported once, and none outlives its parent."""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def forked(task: Callable[[], int], log: Path, device: str | None = None) -> int:
    """Starts a process that does the task and says what it says into the log; gives its number.

    Args:
        task: What it does; gives the exit code.
        log: The file that its output is appended to.
        device: The only accelerator that it sees, as ``CUDA_VISIBLE_DEVICES`` has it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        _die_with(parent)
        if device is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
        with open(log, "a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = task()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
    return 0


def _die_with(parent: int) -> None:
    """Ends this process when its parent is killed, so that nobody trains a cell beside the study's next start."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def ended(process: int, wait: bool = False) -> int | None:
    """The exit code of a process, negative where a signal ended it; None while it runs."""
    found, status = os.waitpid(process, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None
