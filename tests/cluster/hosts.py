"""Two hosts with names and addresses of their own, on this machine: network namespaces joined by a virtual cable."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import lit_transformer

PORT = 29400


def missing() -> str:
    """Why there can be no hosts here; empty where there can."""
    if os.geteuid() or shutil.which("ip") is None or shutil.which("unshare") is None:
        return "needs root, ip and unshare"
    name = f"lt{os.getpid()}try"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "no network namespaces here"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


@dataclass
class Process:
    """A command on a host.

    Args:
        popen: The process, first of its own group.
        log: What it says.
    """

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def own(self) -> list[str]:
        """The lines of the program."""
        return [
            line[line.index("lit-transformer: ") :] for line in self.said.splitlines() if "lit-transformer: " in line
        ]

    def wait(self, seconds: float) -> int:
        return self.popen.wait(seconds)

    def kill(self) -> None:
        """Ends it with everything that it has started, as if the power were cut."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@dataclass
class Hosts:
    """host0 at 10.77.0.1 and host1 at 10.77.0.2, which share a folder.

    Args:
        folder: Where commands run.
        tag: Makes the names of namespaces and interfaces this process's own.
    """

    folder: Path
    tag: str
    running: list[Process] = field(default_factory=list)

    def space(self, host: int) -> str:
        return f"lt{self.tag}n{host}"

    def interface(self, host: int) -> str:
        return f"lt{self.tag}v{host}"

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def cable(self, state: str) -> None:
        """``down`` cuts host1 off, ``up`` mends it."""
        self.ip("-n", self.space(1), "link", "set", self.interface(1), state)

    def start(self, host: int, name: str, *words: str, **environment: str) -> Process:
        """Starts a command on a host."""
        root = str(Path(lit_transformer.__file__).parent.parent)
        more = {
            "PYTHONPATH": f"{root}:{self.folder}", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.interface(host),
            "TORCH_CPP_LOG_LEVEL": "FATAL",
        }  # fmt: skip
        into = ["ip", "netns", "exec", self.space(host), "unshare", "--uts"]
        named = ["sh", "-c", f'hostname host{host} && exec "$@"', "sh"]
        log = self.folder / f"{name}{host}.log"
        with log.open("wb") as file:
            popen = subprocess.Popen([*into, *named, *words], cwd=self.folder, stdout=file, stderr=file,
                                     env={**os.environ, **more, **environment}, start_new_session=True)  # fmt: skip
        self.running.append(Process(popen, log))
        return self.running[-1]

    def program(self, host: int, name: str, *words: str, **environment: str) -> Process:
        """Starts ``lit-transformer`` on a host."""
        return self.start(host, name, sys.executable, "-m", "lit_transformer.cli.main", *words, **environment)

    def torchrun(self, host: int, name: str, *words: str, restarts: int = 0) -> Process:
        """Starts torchrun, with one process, on a host."""
        options = [
            "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(host), "--rdzv-backend", "c10d",
            "--rdzv-endpoint", f"10.77.0.1:{PORT}", "--rdzv-id", "job", "--rdzv-conf", f"is_host={1 - host},keep_alive_interval=1,keep_alive_max_attempt=3",
            "--local-addr", f"10.77.0.{host + 1}", "--max-restarts", str(restarts), "--monitor-interval", "0.5",
        ]  # fmt: skip
        launcher = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "lit_transformer.cli.main"]
        # Else a host that comes in the place of a lost one waits for an address that torch 2.13 publishes only once.
        return self.start(host, name, *launcher, *words, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")

    def end_all(self, host: int) -> None:
        """Ends everything on a host: torchrun's workers are leaders of groups of their own."""
        found = subprocess.run(["ip", "netns", "pids", self.space(host)], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def hosts(folder: Path) -> Iterator[Hosts]:
    """Makes the hosts, and leaves nothing of them behind."""
    both = Hosts(folder, str(os.getpid() % 100_000))
    try:
        for host in (0, 1):
            both.ip("netns", "add", both.space(host))
        both.ip("link", "add", both.interface(0), "type", "veth", "peer", "name", both.interface(1))
        for host in (0, 1):
            both.ip("link", "set", both.interface(host), "netns", both.space(host))
            both.ip("-n", both.space(host), "addr", "add", f"10.77.0.{host + 1}/24", "dev", both.interface(host))
            both.ip("-n", both.space(host), "link", "set", both.interface(host), "up")
            both.ip("-n", both.space(host), "link", "set", "lo", "up")
        yield both
    finally:
        for process in both.running:
            process.kill()
        for host in (0, 1):
            both.end_all(host)
        time.sleep(0.2)
        for host in (0, 1):
            subprocess.run(["ip", "netns", "del", both.space(host)], capture_output=True, check=False)
