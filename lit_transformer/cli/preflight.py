"""``lit-transformer preflight``: do all hosts of a job answer, before anything is loaded on them?"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, EXIT_ENVIRONMENT, EnvironmentFault, UserError

if TYPE_CHECKING:
    from torch.distributed import TCPStore

SPARE = 5.0
"""Seconds of the timeout that are kept for the exchange and for saying what is wrong."""


@dataclass(frozen=True)
class Place:
    """A process's place in the job, from the launcher's variables.

    Args:
        rank: Its number.
        count: How many there are.
        address: Where all meet.
        port: The port there.
        hosts: Names of the machines, where the launcher says them: one process on each.
    """

    rank: int
    count: int
    address: str
    port: int
    hosts: tuple[str, ...] = ()

    def name(self, rank: int) -> str:
        """A process, for the user."""
        return self.hosts[rank] if len(self.hosts) == self.count else f"number {rank} of {self.count}"


def run(argv: list[str]) -> int:
    """Runs the verb."""
    parser = OptionParser(
        "preflight",
        "Started once on each machine of a job (srun, torchrun, a pod of Kubernetes): all meet at MASTER_ADDR, add up\n"
        "a number over the network that training will use, and end, within the timeout, with exit code 0, or with 3\n"
        "and the names of the machines that do not answer. Number and count of the machines are those of SLURM_NODEID\n"
        "and SLURM_NNODES, or of RANK and WORLD_SIZE, or of JOB_COMPLETION_INDEX and --hosts, unless said here.",
        "srun --ntasks-per-node=1 lit-transformer preflight --timeout 50",
    )
    parser.add_argument("--rank", type=int, metavar="N", help="number of this machine")
    parser.add_argument("--hosts", metavar="N|NAMES", help="how many machines there are, or their names: a,b,c")
    parser.add_argument("--address", metavar="HOST", help="where all meet (default: MASTER_ADDR, or the first machine)")
    parser.add_argument("--port", type=int, metavar="N", help="the port there (default: MASTER_PORT + 1, or 29401)")
    parser.add_argument("--timeout", type=float, default=50.0, metavar="S", help="seconds to the end (default: 50)")
    options = parser.parse_args(argv)
    if not options.timeout > 2 * SPARE:
        raise UserError(f"--timeout {options.timeout:g}: must be more than {2 * SPARE:g} seconds")
    begun = time.monotonic()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # pages of frames, where one line says it
    place = place_of(os.environ, options.rank, options.hosts, options.address, options.port)
    guard = _guard(place, options.timeout)
    try:
        names = meet(place, begun + options.timeout)
    finally:
        guard.cancel()
    if place.rank == 0:
        seconds = time.monotonic() - begun
        print(f"preflight: {len(names)} of {len(names)} hosts answer, {seconds:.1f} s: {', '.join(names)}",
              file=sys.stderr)  # fmt: skip
    return EXIT_DONE


def _guard(place: Place, timeout: float) -> threading.Timer:
    """Ends the process at the timeout in any case: libraries of exchange may wait for what never comes."""

    def end() -> None:
        others = ", ".join(place.name(rank) for rank in range(place.count) if rank != place.rank)
        print(f"lit-transformer: preflight: {socket.gethostname()} could exchange nothing with some of {others} within "
              f"{timeout:g} s{_interface()}", file=sys.stderr, flush=True)  # fmt: skip
        os._exit(EXIT_ENVIRONMENT)

    timer = threading.Timer(timeout, end)
    timer.daemon = True
    timer.start()
    return timer


def _interface() -> str:
    name = os.environ.get("GLOO_SOCKET_IFNAME")
    return f" over {name}" if name else "; name the network with GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME"


def place_of(
    environment: Mapping[str, str], rank: int | None, hosts: str | None, address: str | None, port: int | None
) -> Place:
    """The place of this process, as options and launcher say.

    Raises:
        UserError: They do not.
    """
    names: tuple[str, ...] = ()
    if hosts is None and "SLURM_JOB_NODELIST" in environment:
        names = slurm_hosts(environment["SLURM_JOB_NODELIST"])
    elif hosts is not None and not hosts.isdigit():
        names = tuple(name for name in hosts.split(",") if name)
    said = hosts if hosts and hosts.isdigit() else _first(environment, "SLURM_NNODES", "WORLD_SIZE")
    count = len(names) or (int(said) if said else 0)
    own = _first(environment, "SLURM_NODEID", "RANK", "JOB_COMPLETION_INDEX") if rank is None else str(rank)
    where = address or environment.get("MASTER_ADDR") or (names[0] if names else "")
    for value, option in ((count, "--hosts"), (own, "--rank"), (where, "--address")):
        if not value:
            raise UserError(f"preflight: {option} is not said, and no launcher says it")
    number = int(own or 0)
    if not 0 <= number < count:
        raise UserError(f"--rank {number}: must be at least 0 and less than the number of hosts, {count}")
    base = environment.get("MASTER_PORT", "")
    return Place(number, count, where, port or (int(base) + 1 if base.isdigit() else 29401), names)


def slurm_hosts(nodelist: str) -> tuple[str, ...]:
    """The hosts of a job, which SLURM writes as ``node[01-04]``; empty where ``scontrol`` is not to be had."""
    import subprocess

    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "hostnames", nodelist]
        return tuple(subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split())
    return ()


def meet(place: Place, deadline: float) -> list[str]:
    """Waits for all processes and exchanges a number with them; their hosts' names.

    Raises:
        EnvironmentFault: Naming who did not come, or where the exchange broke.
    """
    import torch.distributed as dist

    own = socket.gethostname()
    if place.rank:
        _knock(place, own, deadline - SPARE)
    left = timedelta(seconds=max(1.0, deadline - SPARE - time.monotonic()))
    try:
        store = dist.TCPStore(place.address, place.port, None, place.rank == 0, left, wait_for_workers=False)
        store.set(f"host{place.rank}", own)
    except (RuntimeError, ValueError) as error:
        raise EnvironmentFault(_unreachable(place, own, error)) from error
    missing = _awaited(store, place, deadline - SPARE)
    if missing:
        silent = ", ".join(place.name(rank) for rank in missing)
        if place.rank == 0:
            _leave(store, place, missing)
        raise EnvironmentFault(f"preflight: no answer from {silent} (asked by {own}); exclude them, and look at them")
    names = [store.get(f"host{rank}").decode() for rank in range(place.count)]
    _exchange(store, place, names, deadline)
    _leave(store, place, [])
    return names


def _knock(place: Place, own: str, deadline: float) -> None:
    """Waits until somebody listens where all meet: torch's own attempts do not end in time."""
    while True:
        try:
            socket.create_connection((place.address, place.port), timeout=3).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise EnvironmentFault(_unreachable(place, own, error)) from error
        time.sleep(0.3)


def _awaited(store: "TCPStore", place: Place, deadline: float) -> list[int]:
    """Who is missing; the first process decides, so that all say the same."""
    keys = [f"host{rank}" for rank in range(place.count)]
    if place.rank:
        with suppress(RuntimeError):
            store.set_timeout(timedelta(seconds=max(1.0, deadline + 1 - time.monotonic())))
            return list(json.loads(store.get("missing")))
        return [0]
    while time.monotonic() < deadline and not store.check(keys):
        time.sleep(0.1)
    missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
    store.set("missing", json.dumps(missing))
    return missing


def _exchange(store: "TCPStore", place: Place, names: list[str], deadline: float) -> None:
    """Adds up a number over the interface that training will use."""
    import torch
    import torch.distributed as dist

    left = max(1.0, deadline - time.monotonic() - 1)
    total = torch.tensor([place.rank + 1])
    try:
        dist.init_process_group("gloo", store=dist.PrefixStore("exchange", store), rank=place.rank,
                                world_size=place.count, timeout=timedelta(seconds=left))  # fmt: skip
        dist.all_reduce(total)
        dist.destroy_process_group()
    except RuntimeError as error:
        done: list[int] = []
        with suppress(RuntimeError):  # the first process has given up already
            done = [rank for rank in range(place.count) if store.check([f"done{rank}"])]
        silent = ", ".join(names[rank] for rank in range(place.count) if rank not in (place.rank, *done))
        raise EnvironmentFault(
            f"preflight: {names[place.rank]} reached {place.address}, but could exchange nothing with {silent}"
            f"{_interface()}: {' '.join(str(error).split())[:160]}"
        ) from error
    if int(total) != place.count * (place.count + 1) // 2:
        raise EnvironmentFault(
            f"preflight: {names[place.rank]} received a wrong sum, {int(total)}: look at its network"
        )


def _leave(store: "TCPStore", place: Place, missing: list[int]) -> None:
    """The first process, which holds the store, goes last."""
    store.set(f"done{place.rank}", "1")
    keys = [f"done{rank}" for rank in range(place.count) if rank not in missing]
    deadline = time.monotonic() + SPARE / 2
    while place.rank == 0 and not missing and time.monotonic() < deadline and not store.check(keys):
        time.sleep(0.05)
    if missing and place.rank == 0:
        time.sleep(1.5)


def _unreachable(place: Place, own: str, error: Exception) -> str:
    first = " ".join(str(error).split())[:160]
    if place.rank == 0:
        return f"preflight: {own} cannot listen on port {place.port}: {first}; name another one with --port"
    return f"preflight: no answer from {place.name(0)} at {place.address}:{place.port} (asked by {own}): {first}"


def _first(environment: Mapping[str, str], *names: str) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
