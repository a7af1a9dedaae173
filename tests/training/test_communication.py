"""The share of a step that ranks spend on exchanging tensors."""

from pathlib import Path

import pytest

from lit_transformer.training.callbacks.communication import covered
from tests.training.test_spread_runs import DDP, events, fit, folder  # noqa: F401 folder is a fixture


def test_overlapping_exchange_counts_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4


@pytest.mark.slow
def test_the_share_of_a_real_step(folder: Path) -> None:  # noqa: F811
    words = [
        "--config",
        "tiny.yaml",
        *DDP,
        "--trainer.callbacks+",
        "{class_path: CommunicationShare, every_n_steps: 2}",
    ]
    done = fit(2, *words, "--output", "run")
    assert done.code == 0, done.said
    shares = [each.value for each in events(folder / "run").Scalars("throughput/communication_share")]
    assert len(shares) == 2 and all(0 < share < 1 for share in shares)
