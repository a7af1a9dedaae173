"""Two hosts: one is cut off or loses its power in the middle of a training; the preflight says who is missing."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lit_transformer.checkpoints import find_newest
from tests.cli.conftest import RECIPE
from tests.cluster import hosts as networks
from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.skipif(bool(networks.missing()), reason=networks.missing()), pytest.mark.timeout(600)]

SLOWLY = """
import time
from lightning.pytorch import Callback


class Slowly(Callback):
    def on_train_batch_end(self, *_):
        time.sleep(0.15)
"""
STEPS = 60
FIT = ["fit", "--config", "tiny.yaml", "--config", "overlays/strategy/ddp", "--trainer.devices", "1",
       "--trainer.num_nodes", "2", "--trainer.rank_timeout", "8", "--trainer.max_steps", str(STEPS),
       "--trainer.validate_every", str(STEPS), "--trainer.logger", "false", "--allow", "slowly",
       "--trainer.callbacks+", "slowly.Slowly", "--trainer.callbacks+", "{class_path: Checkpointing, every_n_steps: 5}",
       "--output", "run", "--resume"]  # fmt: skip


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "slowly.py").write_text(SLOWLY)
    with networks.hosts(tmp_path) as both:
        yield both


def until(done: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def saved(hosts: Hosts) -> int:
    found = find_newest(hosts.folder / "run") if (hosts.folder / "run").exists() else None
    return found.step if found else 0


@pytest.mark.slow
def test_a_host_that_is_cut_off_is_named_and_the_run_goes_on(hosts: Hosts) -> None:
    first, second = (hosts.torchrun(host, "cut", *FIT) for host in (0, 1))
    until(lambda: saved(hosts) >= 10, 240)
    hosts.cable("down")
    begun = time.monotonic()
    assert first.wait(60) != 0, first.said
    seconds = time.monotonic() - begun
    print(f"cut off: host0 ended after {seconds:.1f} s")
    assert [line for line in first.own if line.startswith("lit-transformer: rank 1 on host1 has not answered")], (
        first.said
    )
    until(lambda: second.own, 60 - seconds)
    assert second.own[0].startswith("lit-transformer: rank 0 on host0 has not answered"), second.said
    print(first.own, second.own)
    second.kill()  # torchrun's own agent does not end by itself
    reached = saved(hosts)
    assert reached < STEPS
    hosts.cable("up")
    meeting = {
        "MASTER_ADDR": "10.77.0.1",
        "MASTER_PORT": "29500",
    }  # without torchrun, as scripts/slurm/kubernetes.yaml does
    both = [hosts.program(host, "again", *FIT, **meeting, NODE_RANK=str(host)) for host in (0, 1)]
    assert [each.wait(240) for each in both] == [0, 0], both[0].said
    assert f"steps {reached} to {STEPS}" in both[0].said and saved(hosts) == STEPS
    assert "run folder" not in both[1].said


@pytest.mark.slow
def test_a_host_that_loses_its_power_is_named_and_another_one_takes_its_place(hosts: Hosts) -> None:
    """torchrun starts the surviving rank again once a host has come in the place of the lost one."""
    first, second = (hosts.torchrun(host, "power", *FIT, restarts=2) for host in (0, 1))
    until(lambda: saved(hosts) >= 10, 240)
    second.kill()
    hosts.end_all(1)
    begun = time.monotonic()
    until(lambda: first.own, 60)
    print(f"power: named after {time.monotonic() - begun:.1f} s: {first.own}")
    assert "rank 1 on host1" in first.own[0], first.said
    reached = saved(hosts)
    third = hosts.torchrun(1, "spare", *FIT, restarts=2)
    assert first.wait(240) == 0, first.said
    assert third.wait(30) == 0, third.said
    assert reached < STEPS and saved(hosts) == STEPS and "resum" in first.said


def preflight(hosts: Hosts, host: int, **environment: str):  # type: ignore[no-untyped-def]
    words = ["preflight", "--rank", str(host), "--hosts", "host0,host1", "--address", "10.77.0.1", "--timeout", "20"]
    return hosts.program(host, "preflight", *words, **environment)


@pytest.mark.slow
def test_a_preflight_names_the_host_that_does_not_answer(hosts: Hosts) -> None:
    begun = time.monotonic()
    alone = preflight(hosts, 0)
    assert alone.wait(60) == 3 and time.monotonic() - begun < 40
    assert alone.own == [
        "lit-transformer: preflight: no answer from host1 (asked by host0); exclude them, and look at them"
    ]


@pytest.mark.slow
def test_a_preflight_tries_the_network_that_training_will_use(hosts: Hosts) -> None:
    well = [preflight(hosts, host) for host in (0, 1)]
    assert [each.wait(60) for each in well] == [0, 0], well[0].said
    assert "2 of 2 hosts answer" in well[0].said and "host0, host1" in well[0].said
    hosts.cable("down")
    cut = preflight(hosts, 1)
    assert cut.wait(60) == 3 and "no answer from host0 at 10.77.0.1" in cut.said
    hosts.cable("up")
    # An interface that leads nowhere, as where a host's own name is an address of its own.
    wrong = [preflight(hosts, host, GLOO_SOCKET_IFNAME="lo") for host in (0, 1)]
    assert [each.wait(60) for each in wrong] == [3, 3], wrong[0].said + wrong[1].said
    # Gloo says so itself, or is ended at the timeout.
    assert "host1 " in wrong[1].said and "could exchange nothing with" in wrong[1].said
    assert "host0" in wrong[1].said and "over lo" in wrong[1].said
