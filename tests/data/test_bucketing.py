"""Bucketed batches: one order whoever reads it, nothing lost or repeated, exact counts, little padding."""

import numpy as np
import pytest
import torch

from lit_transformer.data.batch import IGNORED, PADDING, LanguageBatch
from lit_transformer.data.bucketing import (
    BucketedLoader,
    BudgetAcrossDevices,
    RowBatches,
    RowEvaluationLoader,
    TokenBudget,
)
from lit_transformer.data.loaders import Share
from lit_transformer.data.token_file import Ints
from lit_transformer.errors import UserError

BUDGET = TokenBudget(64, multiple=4)


class Pairs(RowBatches):
    """Rows of two sequences; with ``ragged`` the lengths differ between epochs, as with random sub-words."""

    def __init__(self, count: int = 90, ragged: bool = True) -> None:
        self.count, self.ragged = count, ragged

    def __len__(self) -> int:
        return self.count

    def lengths(self, epoch: int) -> Ints:
        return np.random.RandomState(epoch if self.ragged else 0).randint(1, 17, (self.count, 2)).astype(np.int64)

    def target_counts(self, ids: Ints) -> Ints:
        epochs, rows = np.divmod(ids, self.count)
        counts = [self.lengths(e)[r, 1] if e >= 0 else 0 for e, r in zip(epochs.tolist(), rows.tolist(), strict=True)]
        return np.array(counts, dtype=np.int64)

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        counts = self.target_counts(ids)
        places = np.arange(max(1, counts.max()))
        targets = np.where(places < counts[:, None], 7, IGNORED)
        tokens = torch.zeros(targets.shape, dtype=torch.long)
        return LanguageBatch(
            tokens=tokens,
            targets=torch.from_numpy(targets),
            positions=tokens,
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(int(counts.sum()) if window_tokens is None else window_tokens),
        )

    @property
    def identity(self) -> dict[str, int | str]:
        return {"rows": self.count}


def taken(loader: BucketedLoader, count: int) -> list[LanguageBatch]:
    batches: list[LanguageBatch] = []
    while len(batches) < count:
        for index, batch in enumerate(loader, 1):
            batches.append(batch)  # type: ignore[arg-type]
            if len(batches) == count or index == len(loader):
                break
    return batches


def ids(batches: list[LanguageBatch]) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


def test_a_pass_holds_each_row_once_within_the_budget() -> None:
    rows = Pairs()
    loader = BucketedLoader(rows, BUDGET, seed=1)
    orders = []
    for number in range(3):
        plan, lengths = loader.plan(number), rows.lengths(number)
        assert sorted(np.concatenate(plan).tolist()) == list(range(len(rows)))
        assert all(len(batch) * BUDGET.widths(lengths[batch]).sum() <= BUDGET.tokens for batch in plan)
        orders.append([batch.tolist() for batch in plan])
    assert orders[0] != orders[1]
    sizes = [len(batch) * BUDGET.widths(rows.lengths(0)[batch]).sum() for batch in loader.plan(0)]
    assert sizes[0] == max(sizes) and sizes != sorted(sizes, reverse=True)
    assert [batch.tolist() for batch in BucketedLoader(rows, BUDGET, seed=2).plan(0)] != orders[0]


def test_shapes_repeat_ranks_are_balanced_and_padding_is_known() -> None:
    rows = Pairs(4000, ragged=False)
    budget = TokenBudget(512)
    loader = BucketedLoader(rows, budget, seed=0)
    lengths = rows.lengths(0)
    shapes = [(len(batch), *budget.widths(lengths[batch]).tolist()) for batch in loader.plan(0)]
    assert len(set(shapes)) <= 8  # of about 140 batches
    full = sorted(n * (s + t) for n, s, t in shapes)[1:]  # all but the one batch that is left over
    assert min(full) > 0.9 * budget.tokens
    assert loader.padding == pytest.approx(1 - lengths.sum() / sum(n * (s + t) for n, s, t in shapes))
    unsorted = 1 - lengths.sum() / (len(rows) * 2 * 16)
    assert loader.padding < unsorted - 0.1


@pytest.mark.parametrize(("world", "accumulate", "workers"), [(1, 3, 0), (2, 1, 0), (3, 2, 0), (1, 1, 2)])
def test_order_and_window_tokens_whatever_ranks_and_workers(world: int, accumulate: int, workers: int) -> None:
    count = world * accumulate * 30  # several passes, windows across their ends
    alone = ids(taken(BucketedLoader(Pairs(), BUDGET, 1), count))
    loaders = [BucketedLoader(Pairs(), BUDGET, 1, Share(r, world, accumulate), workers) for r in range(world)]
    streams = [taken(loader, count // world) for loader in loaders]
    assert [each for step in zip(*map(ids, streams), strict=True) for each in step] == alone
    for window in range(30):
        batches = [batch for stream in streams for batch in stream[window * accumulate : (window + 1) * accumulate]]
        assert {int(batch.window_tokens) for batch in batches} == {int(sum(batch.target_count for batch in batches))}


@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_anywhere_exactly(workers: int) -> None:
    share = Share(1, 2, 2)
    through = ids(taken(BucketedLoader(Pairs(), BUDGET, 1, share), 60))
    for stop in (2, 18, 34, 44) if workers == 0 else (18,):
        first = BucketedLoader(Pairs(), BUDGET, 1, share, workers)
        before = taken(first, stop)
        second = BucketedLoader(Pairs(), BUDGET, 1, share, workers)
        second.load_state_dict(first.state_dict())
        assert ids([*before, *taken(second, 60 - stop)]) == through
        assert second.state_dict()["samples"] == 2 * sum(map(len, through))  # as the run's clock counts on two ranks


def test_goes_on_with_other_ranks_and_refuses_other_rows() -> None:
    alone = ids(taken(BucketedLoader(Pairs(), BUDGET, 1), 60))
    loaders = [BucketedLoader(Pairs(), BUDGET, 1, Share(rank, 3, 2)) for rank in range(3)]
    for loader in loaders:
        taken(loader, 8)
    after = BucketedLoader(Pairs(), BUDGET, 1)
    after.load_state_dict(loaders[0].state_dict())
    assert ids(taken(after, 36)) == alone[24:]
    with pytest.raises(UserError, match=r"data\.batches\.tokens: the checkpoint has 64, here it is 65"):
        BucketedLoader(Pairs(), TokenBudget(65, multiple=4), 1).load_state_dict(after.state_dict())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_each_row_once_and_ranks_alike(world: int) -> None:
    loaders = [RowEvaluationLoader(Pairs(), BUDGET, Share(rank, world)) for rank in range(world)]
    streams = [list(loader) for loader in loaders]
    for batches in zip(*streams, strict=True):
        assert len({len(batch) for batch in batches}) == 1
    seen = [number for stream in streams for batch in stream for number in batch.ids.tolist()]
    assert sorted(number for number in seen if number != PADDING) == list(range(90))
    assert sum(int(batch.window_tokens) for stream in streams for batch in stream) == Pairs().lengths(0)[:, 1].sum()


def test_a_row_beyond_the_budget_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.batches\.tokens: is 16, and the longest row takes 32 tokens"):
        BucketedLoader(Pairs(), TokenBudget(16), 0)
    with pytest.raises(UserError, match=r"data\.batches\.multiple: is 0"):
        TokenBudget(multiple=0)


@pytest.mark.parametrize("world", [2, 3])
def test_a_budget_across_devices_gives_the_same_steps_on_any_number_of_them(world: int) -> None:
    """Two batches to a step: the rows of each step, its targets and the epoch's length are the single process's."""
    budget = BudgetAcrossDevices(64, multiple=4)
    alone = BucketedLoader(Pairs(), budget, 1, Share(accumulate=2))
    assert ids(taken(alone, 60)) == ids(taken(BucketedLoader(Pairs(), BUDGET, 1, Share(accumulate=2)), 60))
    loaders = [BucketedLoader(Pairs(), budget, 1, Share(rank, world, 2)) for rank in range(world)]
    assert {loader.epoch_windows for loader in loaders} == {alone.epoch_windows}
    parts = [taken(loader, 60) for loader in loaders]
    for batch, *shares in zip(taken(BucketedLoader(Pairs(), budget, 1, Share(accumulate=2)), 60), *parts, strict=True):
        rows = [i for share in shares for i in share.ids.tolist() if i != PADDING]
        assert sorted(rows) == sorted(batch.ids.tolist()) and len({len(share) for share in shares}) == 1
        assert {int(share.window_tokens) for share in shares} == {int(batch.window_tokens)}
    alone.load_state_dict(loaders[0].state_dict())  # goes on amid the epoch, with the batch after
    assert ids(taken(alone, 1)) == ids(taken(BucketedLoader(Pairs(), budget, 1, Share(accumulate=2)), 61))[60:]


@pytest.mark.parametrize("world", [1, 2])
def test_evaluation_within_a_budget_across_devices(world: int) -> None:
    budget = BudgetAcrossDevices(64, multiple=4)
    shares = [list(RowEvaluationLoader(Pairs(), budget, Share(rank, world))) for rank in range(world)]
    assert sorted(i for share in shares for row in ids(share) for i in row if i != PADDING) == list(range(90))
    assert {len(share) for share in shares} == {len(RowEvaluationLoader(Pairs(), BUDGET))}
