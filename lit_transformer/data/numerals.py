"""Number words in English and German: a translation corpus that needs no download and has one right answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lit_transformer.data.corpora import digest
from lit_transformer.data.packing import seeded
from lit_transformer.data.readers import Row
from lit_transformer.data.rows import RowCorpus
from lit_transformer.errors import UserError

END = 1_000_000
"""Numbers are below a million, which German writes as one word."""

_ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen | twenty thirty forty fifty sixty seventy eighty ninety"
)
_GERMAN = (
    "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn | zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig"
)
ENGLISH_SMALL, ENGLISH_TENS = (part.split() for part in _ENGLISH.split("|"))
GERMAN_SMALL, GERMAN_TENS = (part.split() for part in _GERMAN.split("|"))

Span = tuple[int, int]


@dataclass(frozen=True)
class Numeral:
    """A number in words, and which characters of one language stand for which of the other.

    Args:
        english: Words with spaces and hyphens: "twenty-one thousand five".
        german: One word: "einundzwanzigtausendfünf".
        alignment: Pairs of character spans, in the order of the English; "und" and hyphens stand for nothing.
    """

    english: str
    german: str
    alignment: tuple[tuple[Span, Span], ...]


def numeral(number: int) -> Numeral:
    """The words for a number from 0 to 999,999 (American English, without "and")."""
    if not 0 <= number < END:
        raise ValueError(f"{number} is not from 0 to {END - 1}")
    english = _Text()
    german = _Text()
    if number == 0:
        english.add("zero", 0)
        german.add("null", 0)
    thousands, rest = divmod(number, 1000)
    if thousands:
        _below_thousand(thousands, english, german)
        english.add("thousand", 10, " ")
        german.add("tausend", 10)
    if rest:
        english.key = german.key = 11
        _below_thousand(rest, english, german)
        if rest % 100 == 1:
            german.add("s", None)  # only at the very end is it "eins"
            german.widen()
    pairs = ((english.spans[key], german.spans[key]) for key in english.spans)
    return Numeral(english.text, german.text, tuple(sorted(pairs)))


class _Text:
    """A text under construction, with the spans of its parts by what they stand for."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: dict[int, Span] = {}
        self.key = 0

    def add(self, part: str, key: int | None, before: str = "") -> None:
        self.text += (before if self.text else "") + part
        if key is not None:
            self.spans[key] = len(self.text) - len(part), len(self.text)

    def widen(self) -> None:
        """Gives the end of the text to the part before it."""
        key = max(self.spans, key=lambda known: self.spans[known])
        self.spans[key] = self.spans[key][0], len(self.text)


def _below_thousand(number: int, english: _Text, german: _Text) -> None:
    """The words for 1 to 999: hundreds, then tens and units, which German says the other way round."""
    key = english.key
    hundreds, rest = divmod(number, 100)
    if hundreds:
        english.add(ENGLISH_SMALL[hundreds], key, " ")
        english.add("hundred", key + 1, " ")
        german.add(GERMAN_SMALL[hundreds], key)
        german.add("hundert", key + 1)
    if 0 < rest < 20:
        english.add(ENGLISH_SMALL[rest], key + 2, " ")
        german.add(GERMAN_SMALL[rest], key + 2)
    elif rest:
        tens, units = divmod(rest, 10)
        english.add(ENGLISH_TENS[tens - 2], key + 2, " ")
        if units:
            english.add(ENGLISH_SMALL[units], key + 3, "-")
            german.add(GERMAN_SMALL[units], key + 3)
            german.add("und", None)
        german.add(GERMAN_TENS[tens - 2], key + 2)


class Numerals(RowCorpus):
    """English number words and the German ones: "twenty-one" is "einundzwanzig", units before tens.

    Fields: ``source`` (English), ``target`` (German), ``number``. Half of the training rows are drawn evenly from all
    numbers, half evenly over their lengths, so that small ones occur. No number of the unseen range is in training or
    validation; test is drawn from it.

    Args:
        rows: Number of training rows; validation has 500, test 1,000 or what the range holds.
        unseen: First number of the test range, and the number behind its last.
        seed: Decides which numbers are drawn.
    """

    def __init__(self, rows: int = 20_000, unseen: tuple[int, int] = (420_000, 430_000), seed: int = 0) -> None:
        first, end = unseen
        if not 0 <= first < end <= END:
            raise UserError(f"data.corpus.unseen: is {first} to {end}, must lie between 0 and {END}")
        if not 1 <= rows <= (END - (end - first)) // 2:
            raise UserError(f"data.corpus.rows: is {rows}, must be 1 to {(END - (end - first)) // 2}")
        self.size = rows
        self.unseen = (first, end)
        self.seed = seed

    def splits(self) -> Sequence[str]:
        """All three."""
        return ("train", "validation", "test")

    def numbers(self, split: str) -> list[int]:
        """The numbers of a split, each once."""
        first, end = self.unseen
        if split == "test":
            return [first + int(n) for n in seeded(self.seed, 2).permutation(end - first)[:1000]]
        draw = seeded(self.seed, 0)
        wanted = self.size + 500
        chosen: dict[int, None] = {}
        while len(chosen) < wanted:
            even = draw.randint(0, END, wanted)
            lengths = np.exp(draw.random_sample(wanted) * np.log(END)).astype(np.int64)
            for number in np.stack([even, lengths], axis=1).flatten().tolist():
                if not first <= number < end and len(chosen) < wanted:
                    chosen[int(number)] = None
        held_out = set(seeded(self.seed, 1).permutation(wanted)[:500].tolist())
        return [n for i, n in enumerate(chosen) if (i in held_out) == (split == "validation")]

    def read(self, split: str) -> Iterator[Row]:
        """The rows of a split."""
        for number in self.numbers(split):
            words = numeral(number)
            yield Row(str(number), {"source": words.english, "target": words.german, "number": str(number)})

    def contents(self, split: str) -> str:
        """What the rows depend on."""
        return digest("numerals 1", split, repr((self.size, self.unseen, self.seed)))
