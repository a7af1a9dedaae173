"""The clock and the generators, and what a resume refuses or says."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_transformer.checkpoints import read, write
from lit_transformer.errors import UserError
from lit_transformer.training.checkpoint_io import LitCheckpointIO
from lit_transformer.training.generators import Generators
from tests.training.tiny_run import Loader, Task, train


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


def _draws() -> list[float]:
    return [
        float(torch.rand(())),
        float(np.random.rand()),
        float(np.random.randn()),
        random.random(),
        random.gauss(0, 1),
    ]


def test_generators_come_back_through_a_file(tmp_path: Path) -> None:
    np.random.randn(), random.gauss(0, 1)  # each keeps half of a pair for later
    device = torch.device("cpu")
    state = {"state_dict": {}, "global_step": 0, "generators": Generators.capture(device).to_plain()}
    expected = _draws()
    write(tmp_path / "x.ckpt", state, 0)
    Generators.from_plain(read(tmp_path / "x.ckpt")["generators"]).restore(device)
    assert _draws() == expected


def test_the_clock(tmp_path: Path) -> None:
    train(tmp_path, 10, loader=Loader(poison=(3,)), max_skipped=1, accumulate_grad_batches=2)
    state = read(tmp_path / "checkpoints/last.ckpt")["run_state"]
    assert state["clock"] == {"steps": 10, "applied": 9, "batches": 20, "samples": 80, "tokens": 40}
    assert state["step"] == 10 and state["schedules"] == [10]


def test_another_schedule_is_named(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 10)
    capsys.readouterr()
    train(tmp_path, 11, resume=tmp_path / "checkpoints/last.ckpt")
    assert "another schedule" not in capsys.readouterr().err

    class Faster(torch.optim.lr_scheduler.LambdaLR):
        pass

    def configure(self: Task) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": Faster(optimizer, lambda _: 0.5), "interval": "step"},
        }

    monkeypatch.setattr(Task, "configure_optimizers", configure)
    train(tmp_path, 14, resume=tmp_path / "checkpoints/last.ckpt")
    assert "another schedule: at step 11 LambdaLR gave a learning rate of" in capsys.readouterr().err


def test_the_state_of_another_optimizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, 10)
    monkeypatch.setattr(Task, "configure_optimizers", lambda self: torch.optim.SGD(self.parameters(), lr=0.1))
    with pytest.raises(UserError, match=r"AdamW \(4 tensors\), the recipe's is SGD"):
        train(tmp_path, 12, resume=tmp_path / "checkpoints/last.ckpt")


def test_a_window_that_does_not_divide_what_was_done_is_refused(tmp_path: Path) -> None:
    train(tmp_path, 10)
    with pytest.raises(UserError, match="accumulate_grad_batches: 3 does not divide the 10 batches"):
        train(tmp_path, 12, resume=tmp_path / "checkpoints/last.ckpt", accumulate_grad_batches=3)
    train(tmp_path, 12, resume=tmp_path / "checkpoints/last.ckpt", accumulate_grad_batches=2)


def test_parts_of_another_step_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "a", 10)
    train(tmp_path / "b", 20)
    a, b = (read(tmp_path / name / "checkpoints/last.ckpt") for name in "ab")
    for part in ("run_state", "lr_schedulers", "loops"):
        mixed = a | {part: b[part]}
        write(tmp_path / "mixed.ckpt", mixed, 10)
        with pytest.raises(UserError, match="of different steps"):
            read(tmp_path / "mixed.ckpt")
    a["loops"]["fit_loop"]["state_dict"]["combined_loader"] = [{"samples": 3}]
    write(tmp_path / "mixed.ckpt", a, 10)
    with pytest.raises(UserError, match="its data stand after 3 samples, its clock after 40"):
        train(tmp_path / "c", 30, resume=tmp_path / "mixed.ckpt")


def test_a_run_state_of_rubbish_is_one_line(tmp_path: Path) -> None:
    train(tmp_path, 10)
    content = read(tmp_path / "checkpoints/last.ckpt")
    for state in ({"step": 10}, {"step": 10, "clock": {"evil": 1}}, content["run_state"] | {"generators": [{}]}):
        write(tmp_path / "bad.ckpt", content | {"run_state": state}, 10)
        with pytest.raises(UserError, match="run state is not one"):
            train(tmp_path, 12, resume=tmp_path / "bad.ckpt")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    from lit_transformer.checkpoints import check_tokenizer

    class Other:
        fingerprint = "b" * 64

    with pytest.raises(UserError, match="another tokenizer"):
        check_tokenizer("x.ckpt", {"tokenizer_sha256": "a" * 64}, Other())
    check_tokenizer("x.ckpt", {"tokenizer_sha256": "b" * 64}, Other())


def test_loading_through_lightning_is_always_plain_data(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="without lit-transformer's footer"):
        LitCheckpointIO().load_checkpoint(tmp_path / "foreign.ckpt", weights_only=False)
    with pytest.raises(UserError, match="is an address"):
        LitCheckpointIO().load_checkpoint("http://127.0.0.1/x.ckpt", weights_only=False)
    with pytest.raises(UserError, match="storage_options"):
        LitCheckpointIO().save_checkpoint({"global_step": 0}, tmp_path / "x.ckpt", storage_options={})


def test_the_source_never_opens_a_pickle() -> None:
    """No call in the package turns ``weights_only`` off or unpickles."""
    package = Path(__file__).resolve().parents[2] / "lit_transformer"
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("weights_only=False", "pickle.load", "pickle.Unpickler", "import pickle", "import dill", "joblib"):
            if word == "weights_only=False" and path.name == "checkpointing.py":
                continue  # there it asks Lightning to save the optimizer too
            if "pickle" in word and path.name in ("part_files.py", "sharded.py"):
                continue  # PyTorch's index of a folder of parts, by a closed list of classes: test_converting
            assert word not in text, (path, word)
