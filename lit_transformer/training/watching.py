"""Which of several ranks died, stopped answering or failed: two threads in each that watch the others."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lit_transformer.errors import EXIT_ENVIRONMENT, LitTransformerError
from lit_transformer.training.peers import Peer, ended_by, with_no_error

BEAT = 1.0
"""Seconds between two signs of life of a rank."""

PATIENCE = 5.0
"""Seconds of silence after which a rank is named, where a connection to some rank has broken already."""

NOTE = 1.5
"""Seconds that a process which is gone may have left its reason behind before it is said to have died without one."""

GRACE = 2.5
"""Seconds that a rank is given to notice by itself, once it is known who failed: its exchange breaks, as a rule."""

LAST = 6.0
"""Seconds from then on after which the process ends in any case: it may wait inside a library for who is gone."""


class RankFailed(LitTransformerError):
    """Another rank died, does not answer or failed, and this one cannot go on without it.

    Args:
        cause: Which one, and why.
    """

    def __init__(self, cause: "Cause") -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.exit_code = cause.code


@dataclass(frozen=True)
class Cause:
    """Why a job on several ranks ends.

    Args:
        rank: The rank that failed first.
        host: Its machine.
        what: What happened to it.
        code: The exit code of the whole.
        raised: Whether it could say so itself.
    """

    rank: int
    host: str
    what: str
    code: int = EXIT_ENVIRONMENT
    raised: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} {self.what}"


class Watch:
    """Threads that tell the other ranks that this one is alive, and look whether they are.

    Signs of life go through the store at which the ranks have met. The first rank looks at all, the others at the
    first one; those on one machine look at each other's processes as well. Once a rank is known to have failed, every
    other one is given a moment to find its exchange broken, and is ended where it does not.

    Args:
        rank: This one.
        peers: All of them, by rank.
        store: A connection to the common store that nobody else uses.
        timeout: Seconds of silence that are borne.
        say: Told the cause by one rank on each machine.
    """

    def __init__(
        self, rank: int, peers: Sequence[Peer], store: Any, timeout: float, say: Callable[[str], None]
    ) -> None:
        self.rank = rank
        self.peers = peers
        self.timeout = timeout
        self.cause: Cause | None = None
        self.progress = 0
        self._store = store
        self._say = say
        self.told = False
        self._suspicious = False
        self._noticed, self._ended = threading.Event(), threading.Event()
        now = time.monotonic()
        self._round = now
        self._heard = {rank: (b"", now) for rank in (range(len(peers)) if rank == 0 else (0,))}
        self._gone: dict[int, float] = {}
        self._known_at = 0.0
        self._store.set(f"beat{rank}", "0 0")
        if rank == 0:
            self._store.set("cause", "-")

    def start(self) -> None:
        """Begins, once every rank has been made."""
        for work in (self._beat, self._judge):
            threading.Thread(target=work, daemon=True, name=f"ranks-{work.__name__.strip('_')}").start()

    def stop(self) -> None:
        """Ends both threads."""
        self._ended.set()

    def failed(self, what: str, code: int) -> Cause:
        """This rank failed by itself; what is the cause for all: that, or what another one was first with."""
        mine = Cause(self.rank, self.peers[self.rank].host, what, code, raised=True)
        self.stop()
        first = self._claim(mine)
        if first is None and self.peers[0].host == mine.host and self.peers[0].state()[0] == "T":
            self.peers[0].kill()  # it holds the store and is stopped: it would be left over
        self.cause = first or mine
        self._await_readers(self.cause)
        return self.cause

    def broken(self) -> Cause | None:
        """An exchange failed: waits until it is known why."""
        self._suspicious = True
        deadline = time.monotonic() + PATIENCE + 2 * BEAT
        while self.cause is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._noticed.set()
        if self.cause is not None:
            self._await_readers(self.cause)
        return self.cause

    def speaks(self, cause: Cause) -> bool:
        """Whether it is this rank that tells the user: one on each machine does."""
        here = [rank for rank, peer in enumerate(self.peers) if peer.host == self.peers[self.rank].host]
        if cause.rank in here and cause.raised:
            return cause.rank == self.rank
        return self.rank == min(rank for rank in here if rank != cause.rank or len(here) == 1)

    def _await_readers(self, cause: Cause) -> None:
        """On the first rank: the store may be in this process, so the others must have read it first."""
        others = [f"read{rank}" for rank in range(len(self.peers)) if rank not in (self.rank, cause.rank)]
        deadline = time.monotonic() + PATIENCE
        while self.rank == 0 and others and time.monotonic() < deadline:
            if _within(1.0, lambda: self._store.check(others)) is not False:
                return
            time.sleep(0.05)

    def _claim(self, cause: Cause) -> Cause | None:
        """Makes this the cause for all, unless there is one; the one that counts, None where that is not known."""
        now = _within(2.0, lambda: self._store.compare_set("cause", "-", json.dumps(asdict(cause))))
        return None if now is None else self._read(now)

    def _read(self, text: bytes) -> Cause:
        _within(1.0, lambda: self._store.set(f"read{self.rank}", "1"))
        return Cause(**json.loads(text))

    def _beat(self) -> None:
        number = 0
        watched = list(self._heard)
        keys = ["cause", *(f"beat{rank}" for rank in watched)]
        try:
            while not self._ended.is_set():
                number += 1
                self._store.set(f"beat{self.rank}", f"{number} {self.progress}")
                cause, *beats = self._store.multi_get(keys)
                now = time.monotonic()
                for rank, value in zip(watched, beats, strict=True):
                    if value != self._heard[rank][0]:
                        self._heard[rank] = (value, now)
                self._round = now
                if cause != b"-" and self.cause is None and not self._ended.is_set():
                    self._settle(self._read(cause))
                    return
                self._ended.wait(min(BEAT, self.timeout / 4))
        except RuntimeError:  # the store is gone, and with it the process it was in
            self._suspicious = True

    def _judge(self) -> None:
        while not self._ended.wait(0.1):
            if self.cause is None and (found := self._look()) is not None:
                self._settle(self._claim(found) or found)
            if self.cause is not None:
                self._finish(self.cause)
                return

    def _look(self) -> Cause | None:
        """What is wrong with another rank, if anything is."""
        now = time.monotonic()
        for rank, peer in enumerate(self.peers):
            if rank == self.rank or peer.host != self.peers[self.rank].host or not peer.begun:
                continue
            state, code = peer.state()
            if state in "ZX" and now - self._gone.setdefault(rank, now) > NOTE:
                return Cause(
                    rank,
                    peer.host,
                    f"{ended_by(code or _launched_status(peer.pid))}{self._at(rank)}; --resume goes on",
                )
        bearable = min(self.timeout, PATIENCE) if self._suspicious else self.timeout
        for rank, (_, since) in self._heard.items():
            silence = (self._round if rank else now) - since  # where the store hangs, nobody else can be judged
            if rank != self.rank and silence > bearable:
                return Cause(rank, self.peers[rank].host, self._silent(rank, silence))
        return None

    def _silent(self, rank: int, silence: float) -> str:
        peer = self.peers[rank]
        near = peer.host == self.peers[self.rank].host
        stopped = ", its process is stopped" if near and peer.begun and peer.state()[0] == "T" else ""
        return f"has not answered for {silence:.0f} s{stopped}{self._at(rank)}; --resume goes on"

    def _at(self, rank: int) -> str:
        value = self._heard.get(rank, (b"", 0.0))[0].decode().partition(" ")[2]
        return f" (last heard of in step {value})" if value else ""

    def _settle(self, cause: Cause) -> None:
        if self.cause is None:
            self._known_at = time.monotonic()
            self.cause = cause

    def _finish(self, cause: Cause) -> None:
        """Gives the main thread time to end by itself; then ends the process."""
        peer = self.peers[cause.rank]
        if not cause.raised and cause.rank != self.rank and peer.host == self.peers[self.rank].host:
            peer.kill()  # a stopped process would be left over
        if not self._noticed.wait(max(0.0, self._known_at + GRACE - time.monotonic())) and self.speaks(cause):
            self.tell(cause)
        if not self._ended.wait(LAST - GRACE):
            end(cause.code)

    def tell(self, cause: Cause) -> None:
        """Tells the user."""
        self.told = True
        self._say(str(cause))


launched: list[subprocess.Popen[bytes]] = []
"""The processes that Lightning has started from this one."""


def observe(processes: list[subprocess.Popen[bytes]]) -> None:
    """Looks after the processes that Lightning starts, in place of its own observer.

    That one kills all and this process too, without a word, at once and with no exit code but that of the kill. Here
    ranks that have met have the time to say what happened; this is for those that have not.
    """
    launched[:] = processes

    def watch() -> None:
        failed = None
        while failed is None:
            time.sleep(0.2)
            codes = [process.poll() for process in processes]
            if all(code == 0 for code in codes):
                return
            failed = next(((rank, code) for rank, code in enumerate(codes, 1) if code), None)
        time.sleep(NOTE + LAST + 1)
        rank, code = failed
        what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        print(f"lit-transformer: rank {rank} on {socket.gethostname()} {what}", file=sys.stderr, flush=True)
        end(code if code > 0 else EXIT_ENVIRONMENT)

    threading.Thread(target=watch, daemon=True, name="ranks-launched").start()


def end(code: int) -> None:
    """Ends this process at once, and those that Lightning has started from it."""
    for process in launched:
        with_no_error(process.kill)
    for stream in (sys.stdout, sys.stderr):
        with_no_error(stream.flush)
    os._exit(code)


def _launched_status(pid: int) -> int:
    """The wait status of a process that Lightning has started from this one and that has been waited for."""
    code = next((process.returncode for process in launched if process.pid == pid), None) or 0
    return -code if code < 0 else code << 8


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """What a call gives that may hang or fail; None then."""
    found: list[Any] = []

    def one() -> None:
        with_no_error(lambda: found.append(work()))

    thread = threading.Thread(target=one, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
