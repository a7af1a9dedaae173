"""A stream: every document once in a pass, exact places to go on from, one order for any number of ranks."""

from collections import Counter

import numpy as np
import pytest

from lit_transformer.data.loaders import Share
from lit_transformer.data.streaming import BlockStream, StreamLoader, shuffled
from lit_transformer.data.tokenizers import Character, Tokenizer
from lit_transformer.errors import UserError

from .conftest import ListCorpus, random_texts
from .test_loaders import taken
from .test_packing import predictions

TEXTS = [text for text in random_texts(25, 30, seed=3) if text]


@pytest.fixture
def streamed() -> ListCorpus:
    corpus = ListCorpus(train=TEXTS)
    corpus.streaming, corpus.buffer_size = True, 6
    return corpus


def characters(special: tuple[str, ...] = ("<eos>",)) -> Tokenizer:
    return Character(special).build(iter(["abcde fg\n"]))


def test_a_pass_is_a_permutation_within_reach_of_the_buffer(streamed: ListCorpus) -> None:
    orders = [[document.text for document in shuffled(streamed, epoch, 1)] for epoch in (0, 1)]
    assert all(sorted(order) == sorted(TEXTS) for order in orders)
    assert orders[0] != orders[1] != TEXTS
    assert orders[0] == [document.text for document in shuffled(streamed, 0, 1)]
    streamed.buffer_size = 1
    assert [document.text for document in shuffled(streamed, 0, 1)] == TEXTS


@pytest.mark.parametrize("special", [("<eos>",), ()])
def test_blocks_hold_the_documents(streamed: ListCorpus, special: tuple[str, ...]) -> None:
    tokenizer = characters(special)
    wanted = predictions(TEXTS, tokenizer)
    stream = BlockStream(streamed, tokenizer, 1, seed=0)
    rows = [stream.row() for _ in range(2 * wanted.total())]
    found = Counter((int(tokens[0]), int(targets[0])) for tokens, targets, _, _ in rows)
    assert found == Counter({pair: 2 * count for pair, count in wanted.items()})  # two passes
    long = BlockStream(streamed, tokenizer, 50, seed=0)
    for _ in range(20):
        tokens, targets, positions, documents = long.row()
        for number in np.unique(documents):
            here = documents == number
            assert positions[here].tolist() == list(range(int(here.sum())))
            assert tokens[here][1:].tolist() == targets[here][:-1].tolist()


@pytest.mark.parametrize("stop", [1, 3, 8, 20, 39])
def test_goes_on_exactly(streamed: ListCorpus, stop: int) -> None:
    def make(rank: int = 0, world: int = 1, batch_size: int = 4) -> StreamLoader:
        return StreamLoader(BlockStream(streamed, characters(), 7, seed=2), batch_size, Share(rank, world))

    through = [batch.tokens.tolist() for batch in taken(make(), 40)]
    first = make()
    taken(first, stop)
    second = make()
    second.load_state_dict(first.state_dict())
    assert [batch.tokens.tolist() for batch in taken(second, 40 - stop)] == through[stop:]
    halves = [make(rank, 2, 2) for rank in (0, 1)]
    for half in halves:
        half.load_state_dict(first.state_dict())
    for whole, *parts in zip(through[stop:], *(taken(half, 40 - stop) for half in halves), strict=True):
        assert [row for part in parts for row in part.tokens.tolist()] == whole


def test_a_stream_without_text(streamed: ListCorpus) -> None:
    streamed.lists = {"train": [""]}
    with pytest.raises(UserError, match="holds no text"):
        BlockStream(streamed, characters(), 4, 0).row()
