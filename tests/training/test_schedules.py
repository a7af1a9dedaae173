"""Schedules are pure functions of the step."""

import math

import pytest
import torch

from lit_transformer.dims import SizeError
from lit_transformer.training.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    Schedule,
    ScheduledRate,
    WarmupStableDecay,
)


@pytest.mark.parametrize("schedule", [each(100, 10) for each in (Constant, Cosine, InverseSqrt, WarmupStableDecay)])
def test_warmup_rises_and_ends_at_one(schedule: Schedule) -> None:
    factors = [schedule(step) for step in range(100)]
    assert factors[0] > 0
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == pytest.approx(1.0, rel=0.06)
    assert max(factors) <= 1.0


def test_cosine() -> None:
    schedule = Cosine(110, warmup=10, final=0.1)
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(110) == pytest.approx(0.1)
    assert schedule(10_000) == pytest.approx(0.1)


def test_inverse_sqrt() -> None:
    schedule = InverseSqrt(1000, warmup=100)
    assert schedule(399) == pytest.approx(0.5)
    assert schedule(899) == pytest.approx(1 / 3)


def test_warmup_stable_decay() -> None:
    schedule = WarmupStableDecay(100, warmup=10, decay=0.2)
    assert schedule(79) == 1.0
    assert schedule(90) == pytest.approx(0.5)
    assert schedule(100) == pytest.approx(0.0)


@pytest.mark.parametrize("arguments", [{"warmup": -1}, {"warmup": 101}, {"warmup": 1, "decay": 1.5}])
def test_out_of_range(arguments: dict[str, float]) -> None:
    with pytest.raises(SizeError, match=r"schedule\."):
        WarmupStableDecay(100, **arguments)  # type: ignore[arg-type]


def test_the_rate_after_a_resume_is_the_recipes() -> None:
    """Steps are restored, rates and schedule are not: a resumed run has the rate that its recipe gives at that step."""

    def make(lr: float, schedule: Schedule) -> tuple[torch.optim.Optimizer, ScheduledRate]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        return optimizer, ScheduledRate(optimizer, schedule)

    optimizer, rate = make(1.0, Cosine(100, 10))
    for _ in range(30):
        optimizer.step()
        rate.step()
    assert optimizer.param_groups[0]["lr"] == Cosine(100, 10)(30)
    again, resumed = make(2.0, Constant(100))
    again.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(rate.state_dict())
    assert again.param_groups[0]["lr"] == 2.0
    same, continued = make(1.0, Cosine(100, 10))
    same.load_state_dict(optimizer.state_dict())
    continued.load_state_dict(rate.state_dict())
    same.step()
    continued.step()
    assert same.param_groups[0]["lr"] == Cosine(100, 10)(31)
    assert math.isclose(continued.get_last_lr()[0], Cosine(100, 10)(31))
