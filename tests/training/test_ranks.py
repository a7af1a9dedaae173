"""Two processes: what each must do alike, and what is kept for each."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lit_transformer.checkpoints import find_newest, read
from lit_transformer.training.ema import EMA
from tests.checkpoints import kills
from tests.training.tiny_run import Batch, Loader, train


class Half(Loader):
    """A rank's half of every batch."""

    def __iter__(self) -> Any:
        rank = int(os.environ.get("RANK", "0"))
        for index, batch in enumerate(super().__iter__()):
            bad = self.only == (self.epoch, index, rank)
            yield Batch(batch.x[rank::2] * (float("nan") if bad else 1), batch.ids[rank::2], batch.window_tokens)

    only: tuple[int, int, int] | None = None


def ranks(work: Callable[[int], int | None]) -> list[int]:
    """Runs ``work(rank)`` in two processes as torchrun would; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def one(rank: int) -> int | None:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="t",
        )  # fmt: skip
        torch.set_num_threads(1)
        return work(rank)

    return [kills.wait(child) for child in [kills.forked(lambda rank=rank: one(rank)) for rank in (0, 1)]]


def run(folder: Path, steps: int = 20, loader: Loader | None = None, **options: Any) -> None:
    os.fsync = lambda _: None  # type: ignore[assignment]
    train(folder, steps, loader=loader or Half(), strategy="ddp", devices=2, every_n_steps=10, val_check_interval=10,
          **options)  # fmt: skip


class Masks(Callback):
    """Notes what dropout leaves of ones, in the first training step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 0:
            kept = torch.nn.functional.dropout(torch.ones(64), 0.5)
            self.folder.mkdir(exist_ok=True)
            torch.save(kept, self.folder / f"mask{trainer.global_rank}")


def test_ranks_of_one_seed_draw_different_dropout_and_the_first_draws_as_one_alone(tmp_path: Path) -> None:
    assert ranks(lambda _: run(tmp_path / "two", 2, callbacks=(Masks(tmp_path / "two"),))) == [0, 0]
    train(tmp_path / "one", 2, callbacks=(Masks(tmp_path / "one"),))
    first, second = (torch.load(tmp_path / "two" / f"mask{rank}") for rank in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.load(tmp_path / "one" / "mask0"))


def test_the_generators_of_each_rank_are_kept_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    assert ranks(lambda _: run(tmp_path / "straight", callbacks=(EMA(0.9),))) == [0, 0]
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    assert ranks(lambda _: run(tmp_path / "first", 10, callbacks=(EMA(0.9),))) == [0, 0]
    states = read(last)["run_state"]["generators"]
    assert len(states) == 2 and not torch.equal(states[0]["torch"], states[1]["torch"])
    assert ranks(lambda _: run(tmp_path / "first", 20, callbacks=(EMA(0.9),), resume=last)) == [0, 0]
    one, other = read(tmp_path / "straight/checkpoints/last.ckpt"), read(last)
    for key in one["state_dict"]:
        assert torch.equal(one["state_dict"][key], other["state_dict"][key])
    assert one["run_state"]["clock"] == other["run_state"]["clock"]
    assert one["run_state"]["clock"]["samples"] == 20 * 4


def test_a_signal_to_one_rank_stops_both_at_the_same_step(tmp_path: Path) -> None:
    class Second(Callback):
        def on_before_backward(self, trainer: Any, *_: Any) -> None:
            if trainer.global_rank == 1 and trainer.global_step == 6:
                os.kill(os.getpid(), signal.SIGUSR1)

    assert ranks(lambda _: run(tmp_path, callbacks=(Second(),))) == [75, 75]
    found = find_newest(tmp_path)
    assert found is not None and found.step == 7


def test_a_bad_loss_on_one_rank_skips_the_window_on_both(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        loader = Half()
        loader.only = (0, 4, 1)
        run(tmp_path, loader=loader, max_skipped=1)

    assert ranks(work) == [0, 0]
    content = read(tmp_path / "checkpoints/last.ckpt")
    assert content["run_state"]["clock"]["applied"] == 19
    assert all(value.isfinite().all() for value in content["state_dict"].values())


def test_a_run_goes_on_with_another_number_of_ranks_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ranks(lambda _: run(tmp_path, 10)) == [0, 0]
    train(tmp_path, 12, loader=Loader(), resume=tmp_path / "checkpoints/last.ckpt")
    assert "resumed on 1 ranks instead of 2" in capfd.readouterr().err
