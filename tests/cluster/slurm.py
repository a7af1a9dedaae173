"""A SLURM of one's own: controller, node daemons and munge from the system's packages, in a temporary folder."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import lit_transformer

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmctldParameters=reboot_from_controller
SlurmdTimeout=30
KillWait=5
ReturnToService=2
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def missing() -> str:
    """Why there can be no SLURM here; empty where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install --no-install-recommends slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "needs root"


class Slurm:
    """The commands of a user.

    Args:
        folder: Of the cluster; jobs work there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        for name in [name for name in self.environment if name.startswith(("SLURM_JOB", "PYTEST"))]:
            del self.environment[name]
        self.environment["PATH"] = f"{folder}/bin:{self.environment['PATH']}:/usr/sbin"
        self.environment["PYTHONPATH"] = str(Path(lit_transformer.__file__).parent.parent)
        (folder / "bin").mkdir()
        program = folder / "bin" / "lit-transformer"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m lit_transformer.cli.main "$@"\n')
        program.chmod(0o755)

    def do(self, *words: str) -> str:
        """Runs a command; what it says."""
        done = subprocess.run(words, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *words: str) -> str:
        """Submits a script; the job's number."""
        return self.do("sbatch", "--parsable", *words)

    def job(self, number: str) -> dict[str, str]:
        """What the controller says of a job."""
        text = self.do("scontrol", "--oneliner", "show", "job", number).splitlines()[0]
        return dict(word.partition("=")[::2] for word in text.split() if "=" in word)

    def wait(self, number: str, states: Sequence[str] = ("COMPLETED",), seconds: float = 300.0) -> dict[str, str]:
        """Waits until a job is in one of the states."""
        deadline = time.monotonic() + seconds
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < deadline, f"job {number} is {job['JobState']}: {self.logs()}"
            time.sleep(0.3)
        return job

    @contextmanager
    def stopped(self, node: str) -> Iterator[None]:
        """While this lasts, a node's daemon does not answer."""
        process = self.daemons[node]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def logs(self) -> str:
        """The ends of the logs."""
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log")))


@contextmanager
def cluster(folder: Path, nodes: int = 1) -> Iterator[Slurm]:
    """Starts a SLURM whose nodes are all this machine, and ends it."""
    ports = [_free_port() for _ in range(nodes + 1)]
    host = socket.gethostname()
    lines = [
        f"NodeName=n{i + 1} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i + 1]} CPUs=2 State=UNKNOWN"
        for i in range(nodes)
    ]
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(64))
    (folder / "munge.key").chmod(0o400)
    names = ",".join(f"n{i + 1}" for i in range(nodes))
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, folder=folder, ports=ports, nodes="\n".join(lines), names=names)
    )
    slurm = Slurm(folder)
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        with (folder / f"{words[0]}.out").open("ab") as said:
            running.append(subprocess.Popen(words, env=slurm.environment, cwd=folder, stdout=said, stderr=said))

    try:
        start("munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
              f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed")  # fmt: skip
        _until(lambda: (folder / "munge.socket").exists(), slurm)
        start("slurmctld", "-D", "-c")
        for i in range(nodes):
            start("slurmd", "-D", "-N", f"n{i + 1}")
            slurm.daemons[f"n{i + 1}"] = running[-1]
        _until(lambda: slurm.do("sinfo", "--noheader", "--format=%T").split() == ["idle"], slurm)
        yield slurm
    finally:
        with suppress(Exception):
            slurm.do("scancel", "--user=root", "--full", "--signal=KILL")
            time.sleep(1)
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until(done: object, slurm: Slurm) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(AssertionError):
            if done():  # type: ignore[operator]
                return
        assert time.monotonic() < deadline, slurm.logs()
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
