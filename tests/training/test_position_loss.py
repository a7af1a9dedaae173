"""The loss by position: the mean of its points, weighted by their tokens, is the loss."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from lit_transformer.data.batch import IGNORED, LanguageBatch
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.training.callbacks import PositionLoss
from lit_transformer.vocabulary import Vocabulary


def batch(rows: int, length: int, seed: int) -> LanguageBatch:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(11, (rows, length), generator=draw)
    documents = (torch.arange(length) >= length // 3).long().expand(rows, -1).contiguous()
    positions = torch.where(documents == 0, torch.arange(length), torch.arange(length) - length // 3)
    targets = torch.randint(11, (rows, length), generator=draw)
    targets[0, 2] = IGNORED
    return LanguageBatch(tokens, positions, torch.arange(rows), torch.tensor(1), targets=targets, documents=documents)


def test_points_hold_the_losses_of_their_positions() -> None:
    pictures: list[Any] = []

    class Board(TensorBoardLogger):
        experiment: Any = SimpleNamespace(add_image=lambda *given: pictures.append(given))

    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn="fit"), sanity_checking=False, is_global_zero=True, world_size=1, global_step=3,
        loggers=[Board("logs")],
    )  # fmt: skip
    task: Any = nn.Module()
    task.network = DecoderOnly(Vocabulary(11), Dims(d_model=8, n_layers=1, n_heads=2, max_len=12)).eval()
    watch = PositionLoss(batches=2, per_octave=1)
    batches = [batch(2, 12, 0), batch(3, 9, 1), batch(2, 12, 2)]
    losses: dict[int, list[float]] = {}
    for each in batches[:2]:
        logits = task.network(**each.inputs).logits
        nll = F.cross_entropy(logits.transpose(1, 2), each.targets, reduction="none")
        for place, value, target in zip(each.positions.flatten(), nll.flatten(), each.targets.flatten(), strict=True):
            if target != IGNORED:
                losses.setdefault(int(place), []).append(float(value))
    for _ in range(2):  # starts anew at each validation
        watch.on_validation_start(trainer, task)
        for number, each in enumerate(batches):
            watch.on_validation_batch_end(trainer, task, None, each, number)
        watch.on_validation_end(trainer, task)
    bins = [(1, 2), (2, 4), (4, 8), (8, 16)]
    for (first, stop), (_, value) in zip(bins, watch.latest, strict=True):
        inside = [loss for place in range(first - 1, stop - 1) for loss in losses.get(place, [])]
        assert abs(value - sum(inside) / len(inside)) < 1e-5
    name, picture, step = pictures[-1]
    assert (name, picture.shape, step, len(pictures)) == ("val/loss_by_position", (3, 360, 640), 3, 2)
