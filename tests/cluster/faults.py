"""A training job of several ranks, one of which comes to grief."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lit_transformer.cli.main import main
from lit_transformer.tasks.base import Task
from tests.checkpoints.kills import forked

OVERLAYS = {"ddp": "overlays/strategy/ddp", "fsdp2": "overlays/strategy/fsdp2"}


class Broken(Exception):
    """What a rank fails with."""


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def raised() -> None:
    raise Broken("the disk of this rank is full of sand")


def hung() -> None:
    time.sleep(10_000)


@dataclass
class Ended:
    """How a job ended.

    Args:
        codes: By rank; negative: the signal.
        said: Lines on standard error, by rank.
        seconds: From the fault to the end of the last rank.
    """

    codes: list[int]
    said: list[list[str]]
    seconds: float

    @property
    def own(self) -> list[str]:
        """The lines of the program."""
        return [line for lines in self.said for line in lines if line.startswith("lit-transformer: ")]


def job(folder: Path, *words: str, ranks: int = 2, fault: Callable[[], None] | None = None, rank: int = 1,
        step: int = 3, limit: float = 60.0) -> Ended:  # fmt: skip
    """Runs ``fit`` in so many forked processes, as torchrun starts them; ``rank`` meets the fault in a step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    moment = folder / "moment"
    moment.unlink(missing_ok=True)

    def one(number: int) -> int:
        file = os.open(folder / f"said{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.update(
            RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
            GROUP_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="t",
        )  # fmt: skip
        torch.set_num_threads(1)
        if fault is not None and number == rank:
            original: Any = Task.micro_batch_loss

            def faulty(self: Task, *arguments: Any) -> Any:
                if self.trainer.training and self.trainer.global_step == step:
                    moment.write_text(str(time.time()))
                    fault()
                return original(self, *arguments)

            Task.micro_batch_loss = faulty  # type: ignore[method-assign]
        code = main(["fit", *words])
        sys.stderr.flush()
        return code

    children = [forked(lambda number=number: one(number)) for number in range(ranks)]  # type: ignore[misc]
    codes: dict[int, int] = {}
    deadline, ended = time.monotonic() + limit, time.time()
    while len(codes) < ranks:
        for child in set(children) - codes.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child], ended = os.waitstatus_to_exitcode(status), time.time()
        if time.monotonic() > deadline:
            for child in set(children) - codes.keys():
                os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.02)
    begun = float(moment.read_text()) if moment.exists() else ended
    said = [(folder / f"said{number}").read_text().splitlines() for number in range(ranks)]
    return Ended([codes[child] for child in children], said, ended - begun)
