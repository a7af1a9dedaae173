"""The order of samples is one, whoever reads it; nothing is read twice or lost, in training or evaluation."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_transformer.data.batch import IGNORED, PADDING, LanguageBatch
from lit_transformer.data.loaders import EvaluationLoader, SampleOrder, Share, TrainLoader
from lit_transformer.data.packing import FixedGrid, PackedBlocks, ShiftedGrid
from lit_transformer.errors import UserError

from .conftest import random_texts
from .test_packing import token_file


@pytest.fixture
def blocks(tmp_path: Path) -> PackedBlocks:
    source, _ = token_file(tmp_path, random_texts(30, 30, seed=9), ("<eos>",))
    return PackedBlocks(source, 8, ShiftedGrid(5))


def taken(loader: TrainLoader, count: int) -> list[LanguageBatch]:
    """Batches as a Trainer draws them: epoch after epoch, and no further than needed."""
    batches: list[LanguageBatch] = []
    while len(batches) < count:
        for index, batch in enumerate(loader, 1):
            batches.append(batch)
            if len(batches) == count or index == len(loader):
                break
    return batches


def global_ids(blocks: PackedBlocks, batch_size: int, world: int, accumulate: int, samples: int) -> list[int]:
    ranks = [TrainLoader(blocks, batch_size, 1, Share(rank, world, accumulate)) for rank in range(world)]
    count = -(-samples // (batch_size * world))
    per_rank = [[batch.ids.tolist() for batch in taken(loader, count)] for loader in ranks]
    return [number for batches in zip(*per_rank, strict=True) for ids in batches for number in ids][:samples]


@pytest.mark.parametrize(
    ("batch_size", "world", "accumulate"), [(1, 1, 1), (3, 2, 1), (4, 3, 2), (2, 4, 3), (50, 2, 2)]
)
def test_order_does_not_depend_on_ranks_or_batch_size(
    blocks: PackedBlocks, batch_size: int, world: int, accumulate: int
) -> None:
    samples = 3 * len(blocks) + 5
    assert (
        global_ids(blocks, batch_size, world, accumulate, samples) == SampleOrder(len(blocks), 1)(0, samples).tolist()
    )


def test_each_block_once_in_each_epoch_and_epochs_differ(blocks: PackedBlocks) -> None:
    count = len(blocks)
    order = SampleOrder(count, 3)
    epochs = [order(epoch * count, (epoch + 1) * count) for epoch in range(4)]
    for number, ids in enumerate(epochs):
        assert sorted(ids.tolist()) == list(range(number * count, (number + 1) * count))
    assert len({tuple((ids % count).tolist()) for ids in epochs}) == 4
    assert order(5, 2 * count).tolist() == np.concatenate(epochs[:2])[5:].tolist()
    assert SampleOrder(count, 4)(0, count).tolist() != epochs[0].tolist()


def test_an_epoch_of_the_trainer_is_whole_windows(blocks: PackedBlocks) -> None:
    for batch_size, world, accumulate in [(1, 1, 1), (3, 2, 2), (4, 1, 5), (100, 2, 3)]:
        loader = TrainLoader(blocks, batch_size, 0, Share(0, world, accumulate))
        assert len(loader) % accumulate == 0
        assert len(loader) == max(1, len(blocks) // loader.window) * accumulate
        assert len(list(loader)) == len(loader)


@pytest.mark.parametrize("grid", [ShiftedGrid(2), FixedGrid()])
def test_window_tokens_count_all_ranks_and_the_whole_window(tmp_path: Path, grid: ShiftedGrid | FixedGrid) -> None:
    source, _ = token_file(tmp_path, random_texts(12, 30), ("<eos>",))
    blocks = PackedBlocks(source, 7, grid)
    world, accumulate = 3, 2
    loaders = [TrainLoader(blocks, 2, 0, Share(rank, world, accumulate)) for rank in range(world)]
    streams = [taken(loader, 30 * accumulate) for loader in loaders]
    for window in range(30):
        batches = [batch for stream in streams for batch in stream[window * accumulate : (window + 1) * accumulate]]
        assert {int(batch.window_tokens) for batch in batches} == {int(sum(batch.target_count for batch in batches))}


@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_anywhere_exactly(blocks: PackedBlocks, workers: int) -> None:
    share = Share(1, 2, 2)
    through = [batch.ids.tolist() for batch in taken(TrainLoader(blocks, 3, 1, share), 40)]
    length = len(TrainLoader(blocks, 3, 1, share))
    stops = sorted({2, length - 2, length, length + 2, 2 * length, 2 * length + 2})
    for stop in stops if workers == 0 else stops[1:4]:
        first = TrainLoader(blocks, 3, 1, share, workers)
        before = taken(first, stop)
        second = TrainLoader(blocks, 3, 1, share, workers)
        second.load_state_dict(first.state_dict())
        after = taken(second, 40 - stop)
        assert [batch.ids.tolist() for batch in [*before, *after]] == through
    # What is left of the epoch is what the Trainer, which counts on from the batches before, expects.
    first = TrainLoader(blocks, 3, 1, share)
    taken(first, length + 4)
    second = TrainLoader(blocks, 3, 1, share)
    second.load_state_dict(first.state_dict())
    assert len(list(second)) == length - 4
    assert len(list(second)) == length


def test_goes_on_after_random_kills_with_other_ranks(blocks: PackedBlocks) -> None:
    draw = random.Random(0)
    order = SampleOrder(len(blocks), 1)
    for _ in range(20):
        state, seen = None, []
        for _ in range(4):
            world, batch_size, accumulate = draw.choice([1, 2, 4]), draw.choice([1, 3]), draw.choice([1, 2])
            loaders = [TrainLoader(blocks, batch_size, 1, Share(rank, world, accumulate)) for rank in range(world)]
            for loader in loaders:
                if state is not None:
                    loader.load_state_dict(state)
            count = accumulate * draw.randint(1, 20)
            for batches in zip(*[taken(loader, count) for loader in loaders], strict=True):
                seen += [number for batch in batches for number in batch.ids.tolist()]
            assert len({str(loader.state_dict()) for loader in loaders}) == 1
            state = loaders[0].state_dict()
        assert seen == order(0, len(seen)).tolist()


def test_refuses_the_place_of_other_data(blocks: PackedBlocks, tmp_path: Path) -> None:
    state = TrainLoader(blocks, 3, 1).state_dict()
    with pytest.raises(UserError, match="data.seed: the checkpoint has 1, here it is 2"):
        TrainLoader(blocks, 3, 2).load_state_dict(state)
    with pytest.raises(UserError, match="data.block_size"):
        TrainLoader(PackedBlocks(blocks.source, 9, blocks.grid), 3, 1).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_leaves_the_global_generators_alone(blocks: PackedBlocks, workers: int) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    taken(TrainLoader(blocks, 3, 1, num_workers=workers), 5)
    list(EvaluationLoader(PackedBlocks(blocks.source, 8, FixedGrid()), 3, num_workers=workers))
    assert torch.equal(before, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == numpy_before  # type: ignore[index,union-attr]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", range(1, 10))
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_evaluation_sees_each_sample_once(tmp_path: Path, size: int, world: int, batch_size: int) -> None:
    source, _ = token_file(tmp_path, ["abcd" * size], ("<eos>",))
    blocks = PackedBlocks(source, 4, FixedGrid())
    assert len(blocks) == size + 1  # the end of the document is predicted too
    batches = [list(EvaluationLoader(blocks, batch_size, Share(rank, world))) for rank in range(world)]
    assert len({len(rank) for rank in batches}) == 1
    assert len({len(EvaluationLoader(blocks, batch_size, Share(rank, world))) for rank in range(world)}) == 1
    ids = [number for rank in batches for batch in rank for number in batch.ids.tolist()]
    assert sorted(number for number in ids if number != PADDING) == list(range(len(blocks)))
    assert len(ids) - len(blocks) < world
    for rank in batches:
        for batch in rank:
            padding = batch.ids == PADDING
            assert (batch.targets[padding] == IGNORED).all()
            assert batch.documents is not None or not padding.any()
            assert batch.window_tokens == batch.target_count
    assert sum(int(batch.window_tokens) for rank in batches for batch in rank) == blocks.targets
