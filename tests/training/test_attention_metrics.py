"""Head metrics during training: logged and drawn, and the network is none the wiser."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lit_transformer.analysis.head_metrics import head_metrics
from lit_transformer.analysis.record import record_attention
from lit_transformer.data.batch import LanguageBatch
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.training.callbacks import AttentionMetrics
from lit_transformer.vocabulary import Vocabulary


def test_metrics_are_logged_and_drawn() -> None:
    logged: list[tuple[dict[str, float], int]] = []
    pictures: list[Any] = []
    logger = SimpleNamespace(
        log_metrics=lambda numbers, step: logged.append((numbers, step)),
        experiment=SimpleNamespace(add_image=lambda *given: pictures.append(given)),
    )
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn="fit"), sanity_checking=False, is_global_zero=True, world_size=1, global_step=3,
        loggers=[logger],
    )  # fmt: skip
    task: Any = nn.Module()
    task.network = DecoderOnly(Vocabulary(20), Dims(16, 2, 2, max_len=12)).train()
    tokens = torch.randint(3, 20, (4, 12), generator=torch.Generator().manual_seed(0))
    batch = LanguageBatch(tokens, torch.arange(12).expand(4, -1), torch.arange(4), torch.tensor(1), targets=tokens)
    watch = AttentionMetrics(rows=3)
    for number in range(2):  # the first batch is looked at, and no other
        watch.on_validation_batch_end(trainer, task, None, batch, number)
    assert task.network.training
    with torch.no_grad(), record_attention(task.network.eval()) as record:
        task.network(tokens[:3])
    expected = head_metrics(record, tokens[:3])
    torch.testing.assert_close(watch.latest.values, expected.values, equal_nan=True)
    ((numbers, step),) = logged
    assert step == 3
    assert numbers["attention/entropy_mean"] == pytest.approx(float(expected["entropy"].mean()))
    assert numbers["attention/previous_max"] == pytest.approx(float(expected["previous"].max()))
    ((name, picture, step),) = pictures
    assert (name, step) == ("attention/heads", 3) and picture.shape[0] == 3 and picture.shape[2] > 600
    assert picture.min() < 100  # something is drawn


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="'indction' is not among entropy"):
        AttentionMetrics(metrics=["indction"])
