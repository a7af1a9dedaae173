"""What is known of a recipe before it is trained."""

from typing import Any

import pytest

from lit_transformer.cli.cells import counted
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.pair_layouts import EncoderDecoderLayout, PrefixLayout
from lit_transformer.data.tokenizers import Word
from lit_transformer.data.translation import TranslationData
from tests.data.test_translation import SOURCES, TARGETS, files


@pytest.mark.parametrize("layout", [EncoderDecoderLayout(), PrefixLayout()])
def test_tokens_and_targets_are_those_of_the_batches(layout: Any, tmp_path: Any) -> None:
    corpus = files(tmp_path, SOURCES * 5, TARGETS * 5)
    data = TranslationData(corpus, Word(), layout=layout, batches=TokenBudget(48, multiple=4), cache_dir=str(tmp_path))
    loader = data.train_dataloader()
    total = 2 * loader.batches + 1  # into a third pass
    batches = [batch for _, batch in zip(range(total), loader.read(0, total), strict=False)]
    found = counted(loader, total)
    assert found.targets == sum(int((batch.targets >= 0).sum()) for batch in batches)
    sequences = [
        [batch.tokens, *([batch.source] if getattr(batch, "source", None) is not None else [])] for batch in batches
    ]
    assert sorted(found.tokens) == sorted(sum(x.numel() for x in each) for each in zip(*sequences, strict=True))
