"""A run that is cut anywhere goes on exactly, and its files are what they say."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lit_transformer.checkpoints import find_newest, read
from lit_transformer.cli.verify_resume import leaves
from lit_transformer.errors import Diverged, EnvironmentFault, Preempted, UserError
from lit_transformer.training import checkpointing
from lit_transformer.training.checkpointing import Checkpointing
from lit_transformer.training.ema import EMA
from lit_transformer.training.run_state import RunState
from tests.checkpoints import kills
from tests.training.tiny_run import Loader, train

CUT = [1, 6, 15, 16, 17, 32, 39]  # 16 batches an epoch; validations every 6 steps


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here survives a kill without it; what needs it is tested with the files."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Stop(Callback):
    """Sends this process a signal at a step: at its end, or in the middle of its validation."""

    def __init__(self, step: int, where: str = "batch", number: int = signal.SIGTERM) -> None:
        self.step, self.where, self.number = step, where, number

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.where == "batch" and trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        if self.where == "validation" and trainer.global_step == self.step and not trainer.sanity_checking:
            os.kill(os.getpid(), self.number)


def _options(window: int) -> dict[str, Any]:
    return {
        "accumulate_grad_batches": window,
        "val_check_interval": 6 * window,
        "loader": Loader(60 if window == 3 else 64),
        "enable_progress_bar": False,
    }


def _differences(one: Any, other: Any) -> list[str]:
    left, right = dict(leaves(one)), dict(leaves(other))
    return [
        name
        for name in left.keys() | right.keys()
        if not (
            torch.equal(left[name], right[name])
            if isinstance(left.get(name), torch.Tensor)
            else left.get(name) == right.get(name)
        )
    ]


def _same(one: Any, other: Any) -> bool:
    return not _differences(one, other)


def _final(folder: Path) -> dict[str, Any]:
    content = read(folder / "checkpoints" / "last.ckpt")
    content["loops"] = {k: v for k, v in content["loops"]["fit_loop"].items() if "val_loop" not in k}
    return content


@pytest.mark.parametrize(("window", "cuts"), [(1, CUT), (2, [8, 12, 16]), (3, [5, 6])])
def test_a_run_that_is_stopped_goes_on_exactly(tmp_path: Path, window: int, cuts: list[int]) -> None:
    """At the ends of epochs and beside them, in epochs 0 to 2, and in the middle of a validation."""
    straight, expected, _ = train(tmp_path / "straight", callbacks=(EMA(0.9),), **_options(window))
    for step in cuts:
        for where in ["batch", "validation"][: 1 + (step % 6 == 0)]:
            folder = tmp_path / f"{step} {where}"
            with pytest.raises(Preempted, match=f"SIGTERM at step {step};"):
                train(folder, callbacks=(EMA(0.9), Stop(step, where)), **_options(window))
            found = find_newest(folder)
            assert found is not None and found.step == step, "no step is lost"
            resumed, trace, _ = train(folder, callbacks=(EMA(0.9),), resume=found.path, **_options(window))
            assert trace.batches == expected.batches[-len(trace.batches) :]
            assert trace.validated == [each for each in expected.validated if each[0] >= step], (step, where)
            assert _same(dict(straight.state_dict()), dict(resumed.state_dict()))
            assert _same(_final(tmp_path / "straight"), _final(folder)), (step, where)


def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    _, expected, _ = train(tmp_path / "straight", every_n_steps=7, callbacks=(EMA(0.9),))
    child = kills.forked(
        lambda: train(tmp_path / "killed", every_n_steps=7, callbacks=(EMA(0.9), Stop(25, number=signal.SIGKILL))) and 0
    )
    assert kills.wait(child) == -signal.SIGKILL
    found = find_newest(tmp_path / "killed")
    assert found is not None and found.step == 24
    _, trace, _ = train(tmp_path / "killed", every_n_steps=7, callbacks=(EMA(0.9),), resume=found.path)
    assert trace.batches == expected.batches[24:]
    assert _same(_final(tmp_path / "straight"), _final(tmp_path / "killed"))


def test_a_finished_run_is_extended_exactly(tmp_path: Path) -> None:
    _, expected, _ = train(tmp_path / "straight")
    for first in (16, 20, 30):  # the end of an epoch, the middle of one, a validation
        folder = tmp_path / str(first)
        train(folder, first)
        _, trace, _ = train(folder, 40, resume=folder / "checkpoints" / "last.ckpt")
        assert trace.batches == expected.batches[first:]
        assert _same(_final(tmp_path / "straight")["state_dict"], _final(folder)["state_dict"])


def test_a_second_cut_soon_after_a_resume(tmp_path: Path) -> None:
    """Lightning saves again in the middle of the first window after a resume, and loses its gradient."""
    _, expected, _ = train(tmp_path / "straight", every_n_steps=10, **_options(2))
    folder, last = tmp_path / "cut", tmp_path / "cut" / "checkpoints" / "last.ckpt"
    train(folder, 10, every_n_steps=10, **_options(2))
    saved = last.read_bytes()

    class Kill(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise KeyError("power cut after one micro-batch")

    with pytest.raises(KeyError):
        train(folder, every_n_steps=10, resume=last, callbacks=(Kill(),), **_options(2))
    assert last.read_bytes() == saved
    _, trace, _ = train(folder, every_n_steps=10, resume=last, **_options(2))
    assert trace.batches == expected.batches[20:]


def test_exactness_is_lost_without_the_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail when the guard is taken out."""
    _, expected, _ = train(tmp_path / "straight")
    train(tmp_path / "cut", 20)
    monkeypatch.setattr("lit_transformer.training.generators.Generators.restore", lambda *_: None)
    _, trace, _ = train(tmp_path / "cut", resume=tmp_path / "cut/checkpoints/last.ckpt", seed=5)
    assert [batch[2] for batch in trace.batches] == [batch[2] for batch in expected.batches[20:]], (
        "the data are the same"
    )
    assert trace.batches != expected.batches[20:]


def test_exactness_is_lost_without_settled_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected, _ = train(tmp_path / "straight")
    monkeypatch.setattr(checkpointing, "settle_loops", lambda *_: None)
    with pytest.raises(Preempted):
        train(tmp_path / "cut", callbacks=(Stop(12, "validation"),))
    _, trace, _ = train(tmp_path / "cut", resume=tmp_path / "cut/checkpoints/last.ckpt")
    assert (
        trace.validated != [each for each in expected.validated if each[0] >= 12]
        or trace.batches != expected.batches[12:]
    )


def test_best_and_last(tmp_path: Path) -> None:
    _, trace, run = train(tmp_path)
    best, last = read(tmp_path / "checkpoints/best.ckpt"), read(tmp_path / "checkpoints/last.ckpt")
    assert last["global_step"] == 40
    step, score = min(trace.validated, key=lambda each: each[1])
    assert best["global_step"] == step
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["best.ckpt", "last.ckpt"]
    callback = run.checkpoint_callback
    assert isinstance(callback, Checkpointing)
    assert callback.best_score == pytest.approx(score) and Path(callback.best_model_path).exists()


def test_paths_are_told_only_once_the_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Checkpointing] = []
    original = checkpointing.Checkpointing.setup

    def setup(self: Checkpointing, *rest: Any, **options: Any) -> None:
        told.append(self)
        original(self, *rest, **options)

    monkeypatch.setattr(checkpointing.Checkpointing, "setup", setup)

    def fail(*_: Any, **__: Any) -> None:
        raise EnvironmentFault("disk full")

    monkeypatch.setattr("lit_transformer.checkpoints.writing.write", fail)
    with pytest.raises(EnvironmentFault):
        train(tmp_path)
    assert told[0].best_model_path == told[0].last_model_path == ""


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, writes = os.write, [0]

    def write(*args: Any) -> int:
        writes[0] += 1
        if writes[0] > 12:
            raise OSError(28, "No space left on device")
        return original(*args)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        train(tmp_path, every_n_steps=2)
    monkeypatch.undo()
    assert find_newest(tmp_path) is not None
    assert set(os.listdir(tmp_path / "checkpoints")) <= {"best.ckpt", "last.ckpt"}


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    class Poison(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 20:
                with torch.no_grad():
                    next(pl_module.parameters())[0, 0] = float("nan")

    with pytest.raises(Diverged, match="step 20: weights are not finite .network.0.weight"):
        train(tmp_path, callbacks=(Poison(),))
    found = find_newest(tmp_path)
    assert found is not None and found.step == 18
    assert all(value.isfinite().all() for value in read(found.path)["state_dict"].values())


def test_a_validation_inside_a_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="val_check_interval: 6 counts batches .* take 8"):
        train(tmp_path, accumulate_grad_batches=4)


def test_a_number_to_monitor_that_is_not_logged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Checkpointing.__init__
    monkeypatch.setattr(
        Checkpointing,
        "__init__",
        lambda self, *args, **options: original(self, *args, **options | {"monitor": "val/los"}),
    )
    with pytest.raises(UserError, match="'val/los' was not logged by the validation; it logged .*val/loss"):
        train(tmp_path)


def test_stray_files_are_swept_when_a_run_begins(tmp_path: Path) -> None:
    stray = tmp_path / "checkpoints" / ".last.ckpt.00000000.partial"
    stray.parent.mkdir()
    stray.write_bytes(b"half")
    train(tmp_path, 1, every_n_steps=100)
    assert not stray.exists()


def test_a_checkpoint_without_run_state_is_refused(tmp_path: Path) -> None:
    class Forget(RunState):
        def on_save_checkpoint(self, *_: Any) -> None:
            pass

    train(tmp_path, 10, run_state=Forget())
    with pytest.raises(UserError, match="no run state"):
        train(tmp_path, resume=tmp_path / "checkpoints/last.ckpt")
