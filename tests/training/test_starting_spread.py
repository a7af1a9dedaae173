"""Runs that start from another run's weights (``--init_from``) under strategies that spread the network."""

from pathlib import Path

import pytest

from tests.training.test_sharded_runs import close, command, folder, losses  # noqa: F401 folder is a fixture


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["ddp", "fsdp2", "tensor_parallel", "deepspeed_zero2", "deepspeed_zero3"])
def test_the_single_process_curve(overlay: str, folder: Path) -> None:  # noqa: F811
    if overlay.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    options = ["fit", "--config", "tiny.yaml", "--model.schedule", "Constant"]
    assert command(1, *options, "--data.batch_size", "4", "--trainer.max_steps", "2", "--output", "first") == [0]
    more = [*options, "--init_from", "first", "--trainer.max_steps", "4"]
    assert command(1, *more, "--data.batch_size", "4", "--output", "alone") == [0]
    rows = "4" if overlay == "tensor_parallel" else "2"
    shared = ["--config", f"overlays/strategy/{overlay}", "--data.batch_size", rows]
    assert command(2, *more, *shared, "--output", "shared") == [0, 0]
    assert losses(folder / "shared") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    close(folder / "alone", folder / "shared")
