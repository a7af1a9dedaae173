"""Synthetic tasks: the rule, the lengths, and splits that share nothing."""

import pytest

from lit_transformer.data.synthetic import Addition, AdditionFromTheEnd, Copy, PassKey, Reverse, Sort, SyntheticTask
from lit_transformer.errors import UserError

RULES = {
    Copy: lambda source: source,
    Reverse: lambda source: source[::-1],
    Sort: lambda source: "".join(sorted(source)),
    Addition: lambda source: str(sum(map(int, source.split("+")))).zfill(source.index("+")),
    AdditionFromTheEnd: lambda source: RULES[Addition]("+".join(n[::-1] for n in source.split("+")))[::-1],
    PassKey: lambda source: source.split("#")[1],
}


@pytest.mark.parametrize("task", RULES)
def test_every_target_follows_the_rule(task: type[SyntheticTask]) -> None:
    corpus = task(rows=300, lengths=(6, 12), test_lengths=(20, 24), test_rows=50)
    rows = {split: [row.values for row in corpus.read(split)] for split in corpus.splits()}
    assert {split: len(each) for split, each in rows.items()} == {"train": 300, "validation": 50, "test": 50}
    for each in rows.values():
        assert all(RULES[task](row["source"]) == row["target"] for row in each)
    sources = {split: {row["source"] for row in each} for split, each in rows.items()}
    assert not sources["train"] & (sources["validation"] | sources["test"])

    def lengths(split: str) -> set[int]:
        return {row["source"].index("+") if issubclass(task, Addition) else len(row["source"]) for row in rows[split]}

    assert lengths("train") == set(range(6, 13)) and lengths("test") == set(range(20, 25))
    assert [row.values for row in corpus.read("test")] == rows["test"]  # the same every time


def test_longer_tests_leave_the_tokenizer_alone() -> None:
    assert Copy(test_lengths=(21, 40)).contents("train") == Copy(test_lengths=(81, 90)).contents("train")
    assert Copy(test_lengths=(21, 40)).contents("test") != Copy(test_lengths=(81, 90)).contents("test")


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(UserError, match="too few sources"):
        list(Copy(rows=2000, lengths=(1, 1)).read("validation"))
    with pytest.raises(UserError, match="data.corpus.lengths"):
        Copy(lengths=(5, 2))
