"""Number words: the rules of both languages, and splits that share nothing."""

import pytest

from lit_transformer.data.numerals import Numerals, numeral
from lit_transformer.errors import UserError


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (16, "sixteen", "sechzehn"),
        (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (30, "thirty", "dreißig"),
        (76, "seventy-six", "sechsundsiebzig"),
        (100, "one hundred", "einhundert"),
        (101, "one hundred one", "einhunderteins"),
        (112, "one hundred twelve", "einhundertzwölf"),
        (1000, "one thousand", "eintausend"),
        (1001, "one thousand one", "eintausendeins"),
        (21_000, "twenty-one thousand", "einundzwanzigtausend"),
        (101_000, "one hundred one thousand", "einhunderteintausend"),
        (
            999_999,
            "nine hundred ninety-nine thousand nine hundred ninety-nine",
            "neunhundertneunundneunzigtausendneunhundertneunundneunzig",
        ),
    ],
)
def test_words(number: int, english: str, german: str) -> None:
    words = numeral(number)
    assert (words.english, words.german) == (english, german)


def test_the_alignment_says_which_part_stands_for_which() -> None:
    words = numeral(421_305)
    pairs = [(words.english[a:b], words.german[c:d]) for (a, b), (c, d) in words.alignment]
    assert pairs == [
        ("four", "vier"),
        ("hundred", "hundert"),
        ("twenty", "zwanzig"),
        ("one", "ein"),
        ("thousand", "tausend"),
        ("three", "drei"),
        ("hundred", "hundert"),
        ("five", "fünf"),
    ]
    order = [span[1][0] for span in words.alignment]
    assert order != sorted(order)  # units before tens
    last = numeral(301)
    assert [last.german[c:d] for _, (c, d) in last.alignment] == ["drei", "hundert", "eins"]


def test_different_numbers_have_different_words() -> None:
    sample = [*range(2000), *range(0, 1_000_000, 997)]
    for side in ("english", "german"):
        assert len({getattr(numeral(number), side) for number in sample}) == len(set(sample))


def test_splits_share_nothing_and_the_test_range_is_unseen() -> None:
    corpus = Numerals(rows=3000, unseen=(420_000, 430_000))
    splits = {split: corpus.numbers(split) for split in ("train", "validation", "test")}
    assert [len(numbers) for numbers in splits.values()] == [3000, 500, 1000]
    assert all(len(set(numbers)) == len(numbers) for numbers in splits.values())
    assert not set(splits["train"]) & set(splits["validation"])
    assert all(420_000 <= number < 430_000 for number in splits["test"])
    assert not any(420_000 <= number < 430_000 for split in ("train", "validation") for number in splits[split])
    assert splits["train"] == Numerals(rows=3000).numbers("train")
    assert splits["train"] != Numerals(rows=3000, seed=1).numbers("train")
    assert Numerals(rows=3000).fingerprint("train") != Numerals(rows=3001).fingerprint("train")


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"data\.corpus\.unseen"):
        Numerals(unseen=(5, 5))
    with pytest.raises(UserError, match=r"data\.corpus\.rows"):
        Numerals(rows=0)
