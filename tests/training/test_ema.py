"""The average of the weights: what it is, where it is used, what is saved of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lit_transformer.checkpoints import read
from lit_transformer.errors import UserError
from lit_transformer.training.checkpoint_io import LitCheckpointIO
from lit_transformer.training.ema import EMA
from tests.training import tiny_run
from tests.training.tiny_run import Loader, Task, train


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


class Watch(Callback):
    """Weights after every step, and those that validation sees."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.weights.append(next(pl_module.parameters()).detach().clone())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.weights.append(next(pl_module.parameters()).detach().clone())

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(next(pl_module.parameters()).detach().clone())

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.after = next(pl_module.parameters()).detach().clone()


def test_it_is_the_formula_and_validation_sees_it(tmp_path: Path) -> None:
    watch, average = Watch(), EMA(0.9)
    train(tmp_path, 12, callbacks=(average, watch), val_check_interval=12)
    expected = watch.weights[0].double()
    for n, weight in enumerate(watch.weights[1:]):
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight.double()
    assert torch.allclose(watch.validated[-1].double(), expected, atol=1e-6)
    assert torch.equal(watch.after, watch.weights[-1]), "the raw weights come back bit for bit"
    content = read(tmp_path / "checkpoints/best.ckpt")
    assert torch.equal(content["ema"]["weights"]["network.0.weight"], watch.validated[-1])
    assert torch.equal(content["state_dict"]["network.0.weight"], watch.weights[-1])


class Evaluated(Task):
    """Has sums over the validation split, as the real tasks have."""

    def loss_sums(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        assert not self.training and not torch.is_grad_enabled()
        return (self.network(batch.x) - batch.x).square().mean(1).sum(), torch.tensor(len(batch))


def test_the_raw_weights_are_validated_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_run, "Task", Evaluated)
    task, _, trainer = train(tmp_path, 12, callbacks=(EMA(0.9),), val_check_interval=12)
    loader = Loader(8, 2, seed=3, shuffle=False)
    with torch.no_grad():
        task.eval()
        raw = torch.cat([(task.network(batch.x) - batch.x).square() for batch in loader]).mean()
    metrics = trainer.callback_metrics
    assert float(metrics["val/raw_loss"]) == pytest.approx(float(raw), rel=1e-6)
    assert abs(float(metrics["val/loss"]) - float(raw)) > 1e-4, "which is the average's"
    content = read(tmp_path / "checkpoints/best.ckpt")
    assert content["callbacks"]
    _, _, again = train(
        tmp_path, 24, callbacks=(EMA(0.9),), val_check_interval=12, resume=tmp_path / "checkpoints/last.ckpt"
    )
    assert set(again.callback_metrics) >= {"val/raw_loss", "val/loss"}


def test_it_does_not_change_the_training(tmp_path: Path) -> None:
    _, one, _ = train(tmp_path / "with", callbacks=(EMA(),))
    _, other, _ = train(tmp_path / "without")
    assert one.batches == other.batches and one.validated != other.validated


def test_evaluating_a_checkpoint_uses_it_as_the_training_did(tmp_path: Path) -> None:
    _, trace, _ = train(tmp_path, 12, callbacks=(EMA(0.9),))
    trainer = Trainer(logger=False, enable_progress_bar=False, callbacks=[EMA()], plugins=[LitCheckpointIO()],
                      enable_model_summary=False, accelerator="cpu", enable_checkpointing=False)  # fmt: skip
    path = tmp_path / "checkpoints/last.ckpt"
    (metrics,) = trainer.validate(Task(), Loader(8, 2, seed=3, shuffle=False), ckpt_path=path, verbose=False)
    assert metrics["val/loss"] == pytest.approx(trace.validated[-1][1], rel=1e-6)


def test_a_tied_weight_is_averaged_once_and_known_by_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Task.__init__

    def tied(self: Task, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.again = torch.nn.Linear(8, 16)
        self.again.weight = self.network[0].weight

    monkeypatch.setattr(Task, "__init__", tied)
    train(tmp_path, 6, callbacks=(EMA(),))
    state = read(tmp_path / "checkpoints/last.ckpt")["ema"]
    assert "again.weight" not in state["weights"]
    assert state["aliases"] == {"network.0.weight": ["network.0.weight", "again.weight"]}


def test_a_decay_that_makes_no_sense_is_refused() -> None:
    for decay in (0.0, 1.0, 2.0):
        with pytest.raises(UserError, match="between 0 and 1"):
            EMA(decay)
