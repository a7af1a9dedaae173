"""Checkpoints that are folders of parts, written by training itself on several real processes."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lit_transformer.cli.training  # noqa: F401 here, so that the processes need not import it anew
from lit_transformer.checkpoints import find_newest, read, verify
from lit_transformer.cli.main import main
from lit_transformer.cli.processes import Outcome, run_command
from lit_transformer.cli.verify_resume import leaves
from lit_transformer.errors import UserError
from tests.training.test_spread_runs import folder  # noqa: F401  a fixture

FSDP2 = ["--config", "overlays/strategy/fsdp2"]
PARTS = ["--trainer.strategy.checkpoints", "Parts"]
EMA = ["--trainer.callbacks+", "{class_path: EMA, decay: 0.9}"]


def fit(ranks: int, *words: str, rows: int = 4) -> Outcome:
    """Two ranks with four rows each, as a single process with eight."""
    return run_command(["fit", "--config", "tiny.yaml", "--trainer.logger", "false", "--model.schedule", "Constant",
                        *EMA, "--data.batch_size", str(rows), *words], ranks)  # fmt: skip


def unlike(one: Any, other: Any) -> list[str]:
    """Names of the values that differ, bit for bit."""
    a, b = dict(leaves(one)), dict(leaves(other))
    return [
        name for name in sorted(a.keys() | b.keys()) if name not in a or name not in b or not same(a[name], b[name])
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return bool(a == b)


def killed_in(name: str, rank: int, number: int) -> Callable[[], None]:
    """Has a rank die in the place of a call of a function of ``sharded``."""
    from lit_transformer.checkpoints import sharded

    original = getattr(sharded, name)
    left = [number]

    def call(*words: Any, **options: Any) -> Any:
        if sharded._rank() == rank:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*words, **options)

    setattr(sharded, name, call)
    return lambda: setattr(sharded, name, original)


@pytest.mark.slow
def test_parts_hold_what_the_file_holds(folder: Path) -> None:  # noqa: F811
    """Bit for bit: weights, moments, averages, clock; on resume too, and every verb takes them."""
    assert fit(2, *FSDP2, "--trainer.max_steps", "3", "--output", "file").code == 0
    done = fit(2, *FSDP2, *PARTS, "--trainer.max_steps", "3", "--output", "parts")
    assert done.code == 0, done.said
    last = folder / "parts/checkpoints/last.ckpt"
    assert last.is_symlink() and {"__0_0.distcp", "__1_0.distcp"} <= {file.name for file in last.iterdir()}
    one, other = read("file/checkpoints/last.ckpt"), read(last)
    assert unlike(one, other) == [] and one.keys() == other.keys() and other["ema"]["updates"] == 3
    for where in ("file", "parts"):
        done = fit(2, *FSDP2, *(PARTS if where == "parts" else []), "--trainer.max_steps", "6", f"--resume={where}")
        assert done.code == 0, done.said
    assert unlike(read("file/checkpoints/last.ckpt"), read(last)) == []
    assert verify(last).step == 6
    assert sorted(path.name for path in last.parent.iterdir() if path.is_symlink()) == ["best.ckpt", "last.ckpt"]
    assert len(list(last.parent.iterdir())) == 4  # two folders, and what leads to them


@pytest.mark.slow
def test_every_verb_takes_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    kept = ["--trainer.callbacks+", "{class_path: KeptCheckpoints, last: 2}", "--trainer.validate_every", "1"]
    done = fit(2, *FSDP2, *PARTS, *kept, "--trainer.max_steps", "4", "--output", "run")
    assert done.code == 0, done.said
    names = sorted(path.name for path in Path("run/checkpoints").glob("*.ckpt"))
    assert names == ["best.ckpt", "last.ckpt", "step-00000003.ckpt", "step-00000004.ckpt"]
    assert 2 <= len(list(Path("run/checkpoints").glob("*.parts"))) <= 4
    last, alone = "run/checkpoints/last.ckpt", ["--trainer.strategy", "auto", "--trainer.devices", "1"]
    assert main(["checkpoint", "convert", last, "--output", "one.ckpt"]) == 0
    said = {}
    for place in (last, "one.ckpt"):
        capsys.readouterr()
        words = ["--config", "run/recipe.yaml", *alone, "--trainer.logger", "false"]
        assert main(["validate", "--checkpoint", place, *words]) == 0
        said[place] = capsys.readouterr().out
        assert main(["test", "--checkpoint", place, *words]) == 0
        assert main(["generate", "--checkpoint", place, "--prompt", "the", "--max_new_tokens", "8"]) == 0
    assert "val/loss" in said[last]
    assert main(["checkpoint", "verify", "run"]) == 0
    assert capsys.readouterr().out.count(": good, step") == 4
    assert main(["checkpoint", "inspect", last]) == 0
    assert "decay 0.9, 4 updates" in capsys.readouterr().out
    assert main(["checkpoint", "average", "run", "--last", "2", "--output", "mean.ckpt"]) == 0
    assert main(["fit", "--config", "tiny.yaml", "--init_from", last, "--trainer.max_steps", "1"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["fsdp2", "tensor_parallel", "fsdp2_tp"])
def test_going_on_with_other_numbers(overlay: str, folder: Path) -> None:  # noqa: F811
    """2 to 1 to 4 to 2 ranks, or 4 to 1 to 4, and DDP: as the single process."""
    strategy = ["--config", f"overlays/strategy/{overlay}", *PARTS]
    share = {"fsdp2": 1, "tensor_parallel": 2, "fsdp2_tp": 2}[overlay]

    def run(ranks: int, steps: int, *words: str) -> None:
        spread = [*strategy, "--trainer.devices", str(ranks)] if ranks > 1 else []
        rows = 8 // (ranks // share) if ranks > 1 else 8
        done = fit(ranks, *spread, "--trainer.max_steps", str(steps), *words, rows=rows)
        assert done.code == 0, done.said

    run(1, 7, "--output", "alone")
    numbers = {"fsdp2": (2, 1, 4, 2), "tensor_parallel": (2, 1, 2), "fsdp2_tp": (4, 1, 4)}[overlay]
    for i, ranks in enumerate(numbers):
        run(ranks, 6 - len(numbers) + i + 1, "--output", "run") if i == 0 else run(
            ranks, 6 - len(numbers) + i + 1, "--resume=run"
        )  # noqa: E501
        assert Path("run/checkpoints/last.ckpt").is_symlink() == (ranks > 1)
    done = fit(2, "--config", "overlays/strategy/ddp", "--trainer.max_steps", "7", "--resume=run")
    assert done.code == 0, done.said
    one, other = read("alone/checkpoints/last.ckpt"), read("run/checkpoints/last.ckpt")
    assert one["run_state"]["clock"] == other["run_state"]["clock"]
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(other["state_dict"][name], value, rtol=1e-3, atol=1e-5)
    for name, value in one["ema"]["weights"].items():
        torch.testing.assert_close(other["ema"]["weights"][name], value, rtol=1e-3, atol=1e-5)


KILLS = [("write", 0, 1), ("described", 1, 1), ("described", 0, 2), ("publish", 0, 1), ("_each", 0, 1), ("_each", 1, 2)]


@pytest.mark.slow
def test_killed_while_saving(folder: Path) -> None:  # noqa: F811
    """At several moments, on either rank: the last checkpoint verifies, and the resumed run is the unbroken one."""
    words = [*FSDP2, *PARTS, "--trainer.validate_every", "2", "--trainer.max_steps"]
    assert fit(2, *words, "6", "--output", "through").code == 0
    assert fit(2, *words, "2", "--output", "begun").code == 0
    for name, rank, number in KILLS:
        shutil.copytree("begun", "run", symlinks=True)
        undo = killed_in(name, rank, number)
        assert fit(2, *words, "6", "--resume=run").code != 0, name
        undo()
        found = find_newest("run")
        assert found is not None and found.step == 2 and not found.skipped, name
        done = fit(2, *words, "6", "--resume=run")
        assert done.code == 0, done.said
        one, other = (read(f"{run}/checkpoints/last.ckpt") for run in ("through", "run"))
        for part in ("state_dict", "optimizer_states", "ema", "run_state", "callbacks"):
            assert unlike(one[part], other[part]) == [], name
        assert len(list(Path("run/checkpoints").iterdir())) == 4, name
        shutil.rmtree("run")


@pytest.mark.slow
def test_damage_is_named(folder: Path) -> None:  # noqa: F811
    """Each file of the folder flipped, cut and lost: one line that names it, and the older checkpoint is gone on from."""
    done = fit(2, *FSDP2, *PARTS, "--trainer.max_steps", "4", "--trainer.validate_every", "2", "--output", "run")
    assert done.code == 0, done.said
    last = Path("run/checkpoints/last.ckpt")
    Path("run/checkpoints/best.ckpt").unlink()
    shutil.copytree(last, "run/checkpoints/best.ckpt")
    names = sorted(file.name for file in last.iterdir())
    assert names == [".metadata", "__0_0.distcp", "__1_0.distcp", "lit-transformer.json", "meta.pt"]
    for name in names:
        file = last / name
        good = file.read_bytes()
        middle = len(good) // 2
        for bad in (good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :], good[:middle], b"", None):
            file.unlink() if bad is None else file.write_bytes(bad)
            with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
                verify(last)
            assert "\n" not in str(caught.value)
            with pytest.raises(UserError, match=name.replace(".", r"\.")):
                read(last)
            found = find_newest("run")
            assert found is not None and found.path.name == "best.ckpt" and name in found.skipped[0]
            file.write_bytes(good)
    (last / "__1_0.distcp").write_bytes(b"damaged")
    done = fit(2, *FSDP2, *PARTS, "--trainer.max_steps", "5", "--resume=run")
    assert done.code == 0, done.said
    assert verify(last).step == 5  # the damaged one is replaced, and best.ckpt, a folder of its own, is still there
    shutil.rmtree(last.resolve())
    found = find_newest("run")
    assert found is not None and "last.ckpt" in found.skipped[0]
