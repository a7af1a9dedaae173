"""Mixing: shares as wanted, every block of every corpus, an order that is a pure function of the place."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_transformer.data.loaders import TrainLoader
from lit_transformer.data.mixing import MixedCorpus, MixedLanguageModelingData
from lit_transformer.data.tokenizers import Character
from lit_transformer.errors import UserError

from .conftest import ListCorpus, random_texts

FIRST = ListCorpus(train=random_texts(20, 40, 1, "abcd"), validation=["abab"])
SECOND = ListCorpus(train=random_texts(60, 40, 2, "wxyz"), test=["wxyz"])


def data(tmp_path: Path, weights: list[float] | None, **more: int) -> MixedLanguageModelingData:
    corpus = MixedCorpus([FIRST, SECOND], weights)
    return MixedLanguageModelingData(corpus, Character(), 8, 4, cache_dir=str(tmp_path / "cache"), **more)


def is_first(tokens: torch.Tensor, mixed: MixedLanguageModelingData) -> bool:
    return not set(mixed.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)) & set("wxyz")


@pytest.mark.parametrize(("weights", "share"), [([3.0, 1.0], 0.75), ([1.0, 9.0], 0.1), (None, None)])
def test_shares_and_passes(tmp_path: Path, weights: list[float] | None, share: float | None) -> None:
    mixed = data(tmp_path, weights)
    blocks = mixed.train_dataloader().blocks
    sizes = [len(part) for part in blocks.parts]
    assert len(blocks) == sum(sizes)
    share = sizes[0] / sum(sizes) if share is None else share
    epochs = [blocks.batch(np.arange(n * len(blocks), (n + 1) * len(blocks))) for n in range(3)]
    for batch in epochs:
        assert sum(is_first(row, mixed) for row in batch.tokens) == pytest.approx(share * len(blocks), abs=1)
    seen = Counter((part, int(own[0])) for number in range(3 * len(blocks)) for part, own in [blocks._origin(number)])
    assert max(seen.values()) == 1  # ids count on: no sample of a pass twice, with its own cuts in each
    for part, size in enumerate(sizes):
        numbers = Counter(own % size for which, own in seen if which == part)
        assert max(numbers.values()) - min(numbers.values() if len(numbers) == size else [0]) <= 1


def test_a_resumed_run_and_workers_read_the_same(tmp_path: Path) -> None:
    loader = data(tmp_path, [1.0, 1.0]).train_dataloader()
    first = [batch for batch, _ in zip(loader, range(10), strict=False)]
    again = data(tmp_path, [1.0, 1.0], num_workers=2).train_dataloader()
    assert isinstance(again, TrainLoader)
    again.load_state_dict({**loader.state_dict(), "samples": 12})
    for wanted, batch in zip(first[3:], again, strict=False):
        assert torch.equal(wanted.tokens, batch.tokens) and torch.equal(wanted.ids, batch.ids)
        assert batch.window_tokens == batch.target_count
    with pytest.raises(UserError, match=r"data.corpus: the checkpoint has"):
        data(tmp_path, [1.0, 2.0]).train_dataloader().load_state_dict(loader.state_dict())


def test_evaluation_reads_all_of_each(tmp_path: Path) -> None:
    mixed = data(tmp_path, [1.0, 1.0])
    texts = [document.text for document in mixed.corpus.documents("validation")]
    assert len(texts) > 1 and texts[0] == "abab"  # the second's was carved out
    assert mixed.statistics("validation").bytes == sum(map(len, texts))
    assert [document.text for document in mixed.corpus.documents("test")] == ["wxyz"]


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UserError, match="needs at least two to mix"):
        MixedCorpus([FIRST])
    with pytest.raises(UserError, match="names 1, there are 2 corpora"):
        MixedCorpus([FIRST, SECOND], [1.0])
    with pytest.raises(UserError, match="must all be above 0"):
        MixedCorpus([FIRST, SECOND], [1.0, 0.0])
    with pytest.raises(UserError, match="each needs a train split"):
        list(MixedCorpus([FIRST, ListCorpus(validation=["a"])]).documents("train"))
