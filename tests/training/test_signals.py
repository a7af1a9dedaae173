"""Being told to stop."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from lit_transformer.checkpoints import find_newest
from lit_transformer.errors import Preempted
from lit_transformer.training.signals import STOPPING, Signals
from tests.checkpoints import kills
from tests.training.tiny_run import train


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


class At(Callback):
    """Sends a signal in any hook."""

    def __init__(self, hook: str, number: int, when: int = 0) -> None:
        left = [when]

        def send(*_: Any, **__: Any) -> None:
            left[0] -= 1
            if left[0] == -1:
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


HOOKS = {
    "on_train_batch_start": 20, "on_before_backward": 20, "on_after_backward": 20, "on_before_optimizer_step": 10,
    "on_before_zero_grad": 10, "on_train_batch_end": 21, "on_save_checkpoint": 2, "on_validation_start": 2,
    "on_validation_batch_end": 9, "on_validation_end": 2, "on_train_epoch_end": 0, "on_train_epoch_start": 1,
}  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS)
def test_a_signal_anywhere_in_training_stops_at_a_step_with_a_checkpoint(tmp_path: Path, hook: str) -> None:
    steps: list[int] = []

    class Count(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            steps.append(trainer.global_step)

    number = random.Random(hook).choice(STOPPING)
    before = {each: signal.getsignal(each) for each in STOPPING}
    with pytest.raises(Preempted, match=f"{signal.Signals(number).name} at step .*--resume") as caught:
        train(tmp_path, callbacks=(At(hook, number, HOOKS[hook]), Count()), accumulate_grad_batches=2)
    assert caught.value.exit_code == 75
    found = find_newest(tmp_path)
    assert found is not None and found.step == steps[-1], "no step is lost"
    assert {each: signal.getsignal(each) for each in STOPPING} == before, "the signals are given back"


def test_before_the_first_step_nothing_is_written(tmp_path: Path) -> None:
    for hook in ("on_sanity_check_start", "on_validation_batch_start", "on_train_start", "on_fit_start"):
        with pytest.raises(Preempted, match="nothing was written") as caught:
            train(tmp_path / hook, callbacks=(At(hook, signal.SIGTERM),))
        assert caught.value.exit_code != 0
        assert not (tmp_path / hook).exists() or find_newest(tmp_path / hook) is None


def test_in_the_last_step_the_run_ends_well(tmp_path: Path) -> None:
    train(tmp_path, 12, callbacks=(At("on_before_optimizer_step", signal.SIGTERM, 11),))
    found = find_newest(tmp_path)
    assert found is not None and found.step == 12


def test_a_second_interrupt_stops_at_once(tmp_path: Path) -> None:
    class Impatient(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, callbacks=(Impatient(),))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored


def test_lightning_would_end_with_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail when the guard is taken out."""
    monkeypatch.setattr(Signals, "setup", lambda *_, **__: None)
    with pytest.raises(SystemExit) as caught:
        train(tmp_path, callbacks=(At("on_train_batch_start", signal.SIGTERM, 5), Exit()))
    assert caught.value.code != 75
    assert find_newest(tmp_path) is None


class Exit(Callback):
    """What the program does with Lightning's exception."""

    def on_exception(self, *_: Any) -> None:
        raise SystemExit(0)


def stopped(folder: Path, number: int, delay: float) -> dict[str, Any]:
    """Sends a signal to a training process some time after its first step; what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / "begun"

    class Begin(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step:
                with begun.open("a") as file:
                    file.write(f"{trainer.global_step}\n")

    child = kills.forked(
        lambda: (
            train(folder, 100_000, callbacks=(Begin(),), every_n_steps=50, limit_val_batches=1, val_check_interval=25)
            and 0
        )
    )
    while not begun.exists() or not begun.read_text():
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(child, number)
    sent = time.monotonic()
    code = kills.wait(child)
    found = find_newest(folder)
    done = int(begun.read_text().split()[-1])
    return {"code": code, "lost": done - (found.step if found else 0), "seconds": time.monotonic() - sent}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_random_moments(tmp_path: Path, number: int) -> None:
    chance = random.Random(number)
    for attempt in range(3):
        outcome = stopped(tmp_path / str(attempt), number, chance.uniform(0, 0.3))
        assert outcome["code"] == 75 and outcome["lost"] == 0
