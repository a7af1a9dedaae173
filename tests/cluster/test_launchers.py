"""A recipe's devices against the processes that a launcher has started; what a rank's error is called."""

import pytest

from lit_transformer.errors import Diverged, UserError
from lit_transformer.training.callbacks.ranks import described, of_exchange
from lit_transformer.training.peers import Peer, process_state
from lit_transformer.training.trainer import Trainer
from lit_transformer.training.watching import Cause, RankFailed, Watch


def trainer(**options: object) -> Trainer:
    return Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, **options)  # type: ignore[arg-type]


TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "t"}


@pytest.mark.parametrize(("environment", "options", "said"), [
    (TORCHRUN | {"WORLD_SIZE": "2"}, {"devices": 1}, "1 x 1 is not the number of processes that torchrun started, 2"),
    (TORCHRUN | {"WORLD_SIZE": "2"}, {"devices": 2, "num_nodes": 2, "strategy": "ddp"}, "2 x 2 is not"),
    ({"SLURM_STEP_NUM_TASKS": "4"}, {"devices": 1}, "that srun started, 4"),
    ({}, {"devices": [0, 1]}, "CPUs have no numbers"),
    ({}, {"devices": 1, "rank_timeout": 0}, "trainer.rank_timeout"),
])  # fmt: skip
def test_what_is_refused(
    environment: dict[str, str], options: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        trainer(**options)


@pytest.mark.parametrize(("seconds", "meeting"), [(7.0, 600.0), (900.0, 900.0)])
def test_ranks_have_time_to_meet(seconds: float, meeting: float) -> None:
    made = trainer(devices=2, strategy="ddp", rank_timeout=seconds)
    assert made.strategy._timeout.total_seconds() == meeting  # type: ignore[attr-defined]


def test_consequences_are_told_from_causes() -> None:
    assert of_exchange(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    assert of_exchange(RuntimeError("Application timeout caused pair closure"))
    assert of_exchange(RankFailed(Cause(1, "b", "died")))
    assert not of_exchange(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not of_exchange(UserError("data.tokenizer: gloo is no tokenizer"))
    assert described(Diverged("the loss is nan")) == ("failed: the loss is nan", 4)
    assert described(ValueError("two\nlines")) == ("failed: ValueError: two lines", 1)


class Store(dict):  # type: ignore[type-arg]
    """What a watch needs of torch's store, in one process."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()

    def compare_set(self, key: str, old: str, new: str) -> bytes:
        if self[key] == old.encode():
            self.set(key, new)
        return self[key]  # type: ignore[no-any-return]

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)


def test_the_first_cause_counts_and_one_rank_of_each_machine_says_it() -> None:
    peers = [Peer("a", 1, ""), Peer("a", 2, ""), Peer("b", 1, ""), Peer("b", 2, "")]
    store = Store()
    watches = [Watch(rank, peers, store, 10.0, lambda _: None) for rank in range(4)]
    failed = watches[3].failed("failed: it rains", 1)
    assert str(failed) == "rank 3 on b failed: it rains" and failed.raised
    assert watches[1].failed("failed: something else", 2) == failed
    assert [watch.speaks(failed) for watch in watches] == [True, False, False, True]
    silent = Cause(0, "a", "has not answered for 10 s")
    assert [watch.speaks(silent) for watch in watches] == [False, True, True, False]


def test_a_process_number_that_was_given_out_again_is_another_process() -> None:
    this = Peer.this()
    assert this.state()[0] in "RS" and process_state(2**22 + 1)[0] == "Z"
    assert Peer(this.host, this.pid, "1").state()[0] == "Z"
