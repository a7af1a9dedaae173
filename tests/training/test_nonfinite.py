"""Windows that are not finite leave no trace, and too many end the run."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lit_transformer.checkpoints import read
from lit_transformer.errors import Diverged, UserError
from lit_transformer.training import nonfinite
from lit_transformer.training.ema import EMA
from lit_transformer.training.muon import Muon
from lit_transformer.training.nonfinite import NonFinite
from tests.training.tiny_run import Loader, Task, train


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


def without_windows(loader: Loader, bad: set[int], steps: int, window: int = 1, seed: int = 0) -> Task:
    """The same run in a plain loop that passes over the bad windows: neither computed nor drawn for."""
    torch.manual_seed(seed)
    task = Task()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2)
    batches = iter([batch for _ in range(1 + steps * window // len(loader)) for batch in loader])
    for step in range(steps):
        micro = [next(batches) for _ in range(window)]
        if step in bad:
            continue
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / (2 * task.steps))
        optimizer.zero_grad()
        for batch in micro:
            loss = (task.network(batch.x) - batch.x).square().mean() / window
            loss.backward()
        optimizer.step()
    return task


@pytest.mark.parametrize("window", [1, 2])
def test_a_run_with_bad_windows_equals_the_run_without_them(tmp_path: Path, window: int, caplog: Any) -> None:
    poison = (0, 3, 7, 8, 9, 20, 31, 32, 39)
    with caplog.at_level(logging.WARNING, "lit_transformer"):
        task, _, _ = train(
            tmp_path,
            40,
            loader=Loader(poison=poison),
            max_skipped=50,
            accumulate_grad_batches=window,
            limit_val_batches=0,
        )
    bad = {index // window for index in poison}
    expected = without_windows(Loader(), bad, 40, window)
    for one, other in zip(task.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)
    clock = read(tmp_path / "checkpoints/last.ckpt")["run_state"]["clock"]
    assert (clock["steps"], clock["applied"]) == (40, 40 - len(bad))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(bad)
    assert all(
        "learning rate" in line and "samples of rank 0: [" in line and re.search("the loss is (nan|inf)", line)
        for line in lines
    )
    assert {"nan", "inf"} == {word for line in lines for word in re.findall("the loss is (nan|inf)", line)}
    assert lines[0].startswith("step 1:") and lines[0].count(",") >= 4 * window - 1


def test_the_first_one_ends_a_run_that_allows_none(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"step 24: the loss is nan; learning rate .*max_skipped, now 0") as caught:
        train(tmp_path, 40, loader=Loader(poison=(23,)))
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    content = read(tmp_path / "checkpoints/last.ckpt")
    assert content["global_step"] == 20 or content["global_step"] == 18
    assert all(value.isfinite().all() for value in content["state_dict"].values())


def test_one_more_than_allowed_ends_the_run_also_across_a_resume(tmp_path: Path) -> None:
    loader = Loader(poison=(3, 12, 30))
    train(tmp_path, 20, loader=loader, max_skipped=2)
    with pytest.raises(Diverged, match="step 31"):
        train(tmp_path, 40, loader=Loader(poison=(3, 12, 30)), max_skipped=2, resume=tmp_path / "checkpoints/last.ckpt")


def test_nan_reaches_the_weights_without_the_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail when the guard is taken out."""
    monkeypatch.setattr(NonFinite, "_reason", lambda *_: None)
    with pytest.raises(Diverged, match="weights are not finite"):
        train(tmp_path, 40, loader=Loader(poison=(23,)))


def test_a_gradient_that_is_not_finite_is_noticed_behind_a_finite_loss(tmp_path: Path) -> None:
    class Break(Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 5:
                next(pl_module.parameters()).grad[0, 0] = float("inf")

    with pytest.raises(Diverged, match="step 6: the gradient is not finite"):
        train(tmp_path, 40, callbacks=(Break(),))


def test_infinite_losses_count_as_well(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="step 5: the loss is inf"):
        train(tmp_path, 40, loader=Loader(poison=(4,)))


class Late(NonFinite):
    """What an accelerator gets: the window's numbers are read in the next step."""

    def _may_be_late(self, evidence: torch.Tensor) -> bool:
        return self.max_skipped == 0


@pytest.fixture
def _nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonfinite, "_sent", lambda window: window)


@pytest.mark.usefixtures("_nothing_to_wait_for")
@pytest.mark.parametrize("bad", [0, 3, 4, 5, 8, 9, 10, 38, 39])
def test_numbers_that_come_late_stop_the_run_before_anything_is_saved(tmp_path: Path, bad: int) -> None:
    """Validations after each sixth step, saves after each fifth and tenth and at the end."""
    rows = Loader()
    ids = [batch.ids.tolist() for _ in range(4) for batch in rows][bad]
    reached: list[int] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            reached.append(trainer.global_step)

    with pytest.raises(Diverged, match=rf"step {bad + 1}: the loss is (nan|inf); learning rate") as caught:
        train(tmp_path, 40, loader=Loader(poison=(bad,)), guard=Late(), every_n_steps=5, callbacks=(Watch(),))
    assert str(ids) in str(caught.value), "the samples are those of the bad window"
    assert len(reached) <= bad + 1, "one step late at most"
    for file in tmp_path.glob("checkpoints/*.ckpt"):
        content = read(file)
        assert content["global_step"] <= bad
        assert all(value.isfinite().all() for value in content["state_dict"].values())


@pytest.mark.usefixtures("_nothing_to_wait_for")
def test_late_numbers_that_nobody_looked_at_would_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails when the guard is taken out: a loss may be infinite and the weights not yet."""
    monkeypatch.setattr(NonFinite, "settle", lambda *_: None)
    monkeypatch.setattr(nonfinite, "_norm", lambda _, like: torch.zeros_like(like))
    with pytest.raises(Diverged, match="weights are not finite"):
        train(tmp_path, 40, loader=Loader(poison=(3,)), guard=Late())


def test_spikes_are_skipped_and_do_not_enter_the_mean(tmp_path: Path, caplog: Any) -> None:
    class Spiky(Loader):
        def __iter__(self) -> Any:
            for index, batch in enumerate(super().__iter__()):
                batch.x = batch.x * (100 if self.epoch == 1 and index in (4, 5, 6) else 1)
                yield batch

    guard = NonFinite(max_skipped=3, spike_sigma=6.0, window=16)
    with caplog.at_level(logging.WARNING, "lit_transformer"):
        train(tmp_path, 40, loader=Spiky(), guard=guard, limit_val_batches=0)
    assert guard.skipped == 3
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 21", "step 22", "step 23"]
    assert "sigma above" in caplog.records[0].getMessage()


def test_the_average_passes_over_skipped_windows(tmp_path: Path) -> None:
    average = EMA(0.9)
    train(tmp_path, 20, loader=Loader(poison=(3, 4)), max_skipped=2, callbacks=(average,), limit_val_batches=0)
    assert average.updates == 18
    assert all(value.isfinite().all() for value in average.average.values())


def test_muon_without_gradients_does_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = Muon([{"params": [p], "name": "matrices"}], lr=0.1, weight_decay=0.1)
    p.grad = torch.ones(3, 4)
    optimizer.step()
    before, state = p.detach().clone(), str(optimizer.state[p])
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert torch.equal(before, p) and state == str(optimizer.state[p])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_an_optimizer_without_gradients_does_nothing(kind: Any, fused: bool) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([p], lr=0.1, weight_decay=0.1, fused=fused)
    p.grad = torch.ones(3)
    optimizer.step()
    before, state = p.detach().clone(), {k: str(v) for k, v in optimizer.state[p].items()}
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert torch.equal(before, p) and state == {k: str(v) for k, v in optimizer.state[p].items()}


def test_wrong_settings_are_refused() -> None:
    for options in ({"max_skipped": -1}, {"spike_sigma": 0.0}, {"window": 1}):
        with pytest.raises(UserError):
            NonFinite(**options)
