"""What the data tests share: small corpora, the real ones where they are, a cache of their own."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lit_transformer.data.corpora import Corpus, Document, digest

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "language_modeling"


class ListCorpus(Corpus):
    """Documents from lists."""

    def __init__(self, **splits: list[str]) -> None:
        self.lists = splits

    def splits(self) -> Sequence[str]:
        return tuple(self.lists)

    def read(self, split: str) -> Iterator[Document]:
        for number, text in enumerate(self.lists[split]):
            yield Document(f"{split} {number}", text)

    def contents(self, split: str) -> str:
        return digest(*self.lists[split])


def random_texts(count: int, longest: int, seed: int = 0, alphabet: str = "abcde fg\n") -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(alphabet, k=draw.randint(0, longest))) for _ in range(count)]


@pytest.fixture
def corpus() -> ListCorpus:
    return ListCorpus(
        train=random_texts(40, 60), validation=random_texts(7, 30, seed=1), test=random_texts(3, 20, seed=2)
    )


@pytest.fixture
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip("the data folder is not here")
    return REAL


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
