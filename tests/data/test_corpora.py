"""Splits: deterministic, disjoint, nothing lost."""

import pytest

from lit_transformer.data.baselines import baselines
from lit_transformer.data.corpora import StdlibCorpus
from lit_transformer.errors import UserError

from .conftest import ListCorpus, random_texts


def texts(corpus: ListCorpus, split: str) -> list[str]:
    return [document.text for document in corpus.documents(split)]


@pytest.mark.parametrize("count", [2, 3, 20, 500])
def test_carves_a_validation_split(count: int) -> None:
    documents = [f"{number} {text}" for number, text in enumerate(random_texts(count, 40))]
    corpus = ListCorpus(train=documents)
    train, validation = texts(corpus, "train"), texts(corpus, "validation")
    assert train and validation
    assert sorted(train + validation) == sorted(documents)
    assert [text for text in documents if text in train] == train  # the order stays
    assert validation == texts(ListCorpus(train=documents), "validation")
    if count == 500:
        assert 0.05 <= sum(map(len, validation)) / sum(map(len, documents)) < 0.06
    assert corpus.fingerprint("train") != corpus.fingerprint("validation")


def test_cuts_the_tail_of_a_single_document() -> None:
    corpus = ListCorpus(train=["", "x" * 95 + "y" * 5])
    assert (texts(corpus, "train"), texts(corpus, "validation")) == (["x" * 95], ["y" * 5])


def test_equal_documents_do_not_leak() -> None:
    documents = [str(number % 10) * 20 for number in range(200)]
    corpus = ListCorpus(train=documents)
    assert not set(texts(corpus, "train")) & set(texts(corpus, "validation"))


def test_says_when_there_is_nothing_to_carve() -> None:
    with pytest.raises(UserError, match="holds no text"):
        texts(ListCorpus(train=["", ""]), "train")
    with pytest.raises(UserError, match="cannot carve a validation split out of 3 documents"):
        texts(ListCorpus(train=["same"] * 3), "train")


def test_the_standard_library() -> None:
    corpus = StdlibCorpus()
    train, validation = list(corpus.documents("train")), list(corpus.documents("validation"))
    names = [document.name for document in train + validation]
    assert len(names) == len(set(names)) > 300
    assert not any("test" in name.split("/")[:-1] or "site-packages" in name for name in names)
    size = sum(len(document.text) for document in train + validation)
    assert 5e6 < size < 2e7
    assert 0.01 < sum(len(document.text) for document in validation) / size < 0.1
    assert corpus.fingerprint("train") == StdlibCorpus().fingerprint("train")
    assert not corpus.has_split("test")


def test_baselines_of_the_standard_library() -> None:
    found = baselines(StdlibCorpus())
    assert list(found) == ["byte bigram", "gzip -9", "xz -9"]
    assert 3.2 < found["byte bigram"] < 4
    assert 1.9 < found["gzip -9"] < 2.4
    assert 1.6 < found["xz -9"] < found["gzip -9"]


def test_the_bigram_baseline_is_a_distribution() -> None:
    uniform = ListCorpus(train=["ab" * 500], validation=["ab" * 500])
    assert baselines(uniform)["byte bigram"] < 0.1
    assert baselines(ListCorpus(train=["a"], validation=["z"]))["byte bigram"] > 7
