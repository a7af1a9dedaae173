"""Tasks with one right answer, made on the fly: copy, reverse, sort, addition, retrieval of a pass key.

Trained on short ones and tested on longer ones, they show whether a network has learnt the rule (Kazemnejad et al.,
2023, arXiv:2305.19466).
"""

from collections.abc import Iterator, Sequence

from numpy.random import RandomState

from lit_transformer.data.corpora import digest
from lit_transformer.data.packing import seeded
from lit_transformer.data.readers import Row
from lit_transformer.data.rows import RowCorpus
from lit_transformer.errors import UserError

LETTERS, DIGITS = "abcdefghijklmnopqrst", "0123456789"


class SyntheticTask(RowCorpus):
    """Base of the tasks: fields ``source`` and ``target``, a character a token (``Character``).

    The lengths of train and validation are drawn evenly from ``lengths``, those of test from ``test_lengths``. No row
    of validation or test is in train; of the shortest, few differ, so they are rarer than the others.

    Args:
        rows: Number of training rows.
        lengths: Least and most characters (of addition: digits of a number) in train and validation.
        test_lengths: The same in test.
        test_rows: Number of rows in validation and in test.
        seed: Decides which rows are drawn.
    """

    def __init__(
        self,
        rows: int = 20_000,
        lengths: tuple[int, int] = (1, 20),
        test_lengths: tuple[int, int] = (21, 40),
        test_rows: int = 500,
        seed: int = 0,
    ) -> None:
        for name, (least, most) in (("lengths", lengths), ("test_lengths", test_lengths)):
            if not 1 <= least <= most <= 10_000:
                raise UserError(f"data.corpus.{name}: is {least} to {most}, must rise and lie between 1 and 10,000")
        for name, value in (("rows", rows), ("test_rows", test_rows)):
            if value < 1:
                raise UserError(f"data.corpus.{name}: is {value}, must be at least 1")
        self.size, self.test_size = rows, test_rows
        self.lengths, self.test_lengths = tuple(lengths), tuple(test_lengths)
        self.seed = seed

    def splits(self) -> Sequence[str]:
        """All three."""
        return ("train", "validation", "test")

    def pair(self, draw: RandomState, length: int) -> tuple[str, str]:
        """A source of this length and its target."""
        raise NotImplementedError

    def read(self, split: str) -> Iterator[Row]:
        """The rows of a split."""
        train: set[str] = set()
        for number, (source, target) in enumerate(self._pairs(0, self.size, self.lengths, set())):
            train.add(source)
            if split == "train":
                yield Row(str(number), {"source": source, "target": target})
        if split != "train":
            number, lengths = {"validation": (1, self.lengths), "test": (2, self.test_lengths)}[split]
            for row, (source, target) in enumerate(self._pairs(number, self.test_size, lengths, train)):
                yield Row(str(row), {"source": source, "target": target})

    def _pairs(self, stream: int, count: int, lengths: tuple[int, ...], taken: set[str]) -> Iterator[tuple[str, str]]:
        draw = seeded(self.seed, stream)
        for _ in range(100 * count):
            source, target = self.pair(draw, int(draw.randint(lengths[0], lengths[1] + 1)))
            if source in taken:
                continue
            yield source, target
            count -= 1
            if not count:
                return
        raise UserError(
            f"data.corpus: {type(self).__name__} has too few sources of {lengths[0]} to {lengths[1]} characters that "
            "are not in train; make them longer"
        )

    def contents(self, split: str) -> str:
        """What the rows depend on."""
        said = repr((self.size, self.lengths, self.seed))
        if split != "train":
            said += repr((self.test_size, self.test_lengths))
        return digest("synthetic 1", type(self).__name__, split, said)


def _word(draw: RandomState, length: int, alphabet: str) -> str:
    return "".join(alphabet[i] for i in draw.randint(0, len(alphabet), length))


class Copy(SyntheticTask):
    """The source itself."""

    def pair(self, draw: RandomState, length: int) -> tuple[str, str]:
        """See the base class."""
        word = _word(draw, length, LETTERS)
        return word, word


class Reverse(SyntheticTask):
    """The source from its end to its start."""

    def pair(self, draw: RandomState, length: int) -> tuple[str, str]:
        """See the base class."""
        word = _word(draw, length, LETTERS)
        return word, word[::-1]


class Sort(SyntheticTask):
    """The source's letters in the order of the alphabet."""

    def pair(self, draw: RandomState, length: int) -> tuple[str, str]:
        """See the base class."""
        word = _word(draw, length, LETTERS)
        return word, "".join(sorted(word))


class Addition(SyntheticTask):
    """The sum of two numbers of as many digits: "17+25" gives "42", "07+05" gives "12"."""

    def pair(self, draw: RandomState, length: int) -> tuple[str, str]:
        """See the base class."""
        one, other = _word(draw, length, DIGITS), _word(draw, length, DIGITS)
        return f"{one}+{other}", str(int(one) + int(other)).zfill(length)


class AdditionFromTheEnd(Addition):
    """The same with the last digit of each number first, so that carries go the way the sum is written: "71+52" gives
    "24" (Lee et al., 2023, arXiv:2307.03381, section 3).
    """

    def pair(self, draw: RandomState, length: int) -> tuple[str, str]:
        """See the base class."""
        source, target = super().pair(draw, length)
        return "+".join(number[::-1] for number in source.split("+")), target[::-1]


class PassKey(SyntheticTask):
    """Three digits that stand somewhere among letters: "fabk#407#sdda" gives "407" (Mohtashami and Jaggi, 2023,
    arXiv:2305.16300). The length is that of the whole source; below 5, it is 5.
    """

    def pair(self, draw: RandomState, length: int) -> tuple[str, str]:
        """See the base class."""
        key = _word(draw, 3, DIGITS)
        around = max(0, length - 5)
        place = int(draw.randint(0, around + 1))
        return f"{_word(draw, place, LETTERS)}#{key}#{_word(draw, around - place, LETTERS)}", key
