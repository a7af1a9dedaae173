"""What is missing from a text that a network is to complete."""

import numpy as np
from numpy.typing import NDArray

from lit_transformer.data.pair_layouts import Pair
from lit_transformer.data.token_file import Ints
from lit_transformer.errors import UserError

Floats = NDArray[np.float64]


class Objective:
    """Base of the objectives: from a text to one to read and one to write."""

    @property
    def sentinels(self) -> int:
        """Number of tokens that stand for what is missing."""
        return 0

    def check(self, block_size: int) -> None:
        """Refuses pieces that are too long for it.

        Raises:
            UserError: They are.
        """

    def lengths(self, sizes: Ints, chance: Floats) -> Ints:
        """(N, 2) tokens to read and to write of texts of ``sizes`` (N,) tokens.

        Args:
            sizes: Tokens of each text, at least 2.
            chance: (N,) a random number from 0 to 1 for each.
        """
        raise NotImplementedError

    def __call__(self, tokens: Ints, chance: float, sentinels: Ints, draw: np.random.RandomState) -> Pair:
        """What to read and what to write.

        Args:
            tokens: The text.
            chance: Its random number, as ``lengths`` got it.
            sentinels: Ids of the tokens for what is missing.
            draw: Where more randomness comes from.
        """
        raise NotImplementedError


class PrefixSplit(Objective):
    """The text up to a random place is read, the rest written (prefix-LM: Raffel et al., 2020, arXiv:1910.10683)."""

    def lengths(self, sizes: Ints, chance: Floats) -> Ints:
        """See the base class: at least one token on both sides."""
        given = 1 + (chance * (sizes - 1)).astype(np.int64)
        return np.stack([given, sizes - given], axis=1)

    def __call__(self, tokens: Ints, chance: float, sentinels: Ints, draw: np.random.RandomState) -> Pair:
        """See the base class."""
        given = int(self.lengths(np.array([len(tokens)]), np.array([chance]))[0, 0])
        return tokens[:given], tokens[given:]


class SpanCorruption(Objective):
    """T5's objective (Raffel et al., 2020, arXiv:1910.10683): random spans are missing, a sentinel is in the place of
    each; to be written are the sentinels, each with its span behind it.

    Args:
        density: Share of the tokens that is missing.
        span: Mean number of tokens of a span.
        sentinels: Number of sentinels in the vocabulary: as many spans can be missing.
    """

    def __init__(self, density: float = 0.15, span: float = 3.0, sentinels: int = 100) -> None:
        if not 0 < density < 1:
            raise UserError(f"data.objective.density: is {density}, must lie between 0 and 1")
        if span < 1:
            raise UserError(f"data.objective.span: is {span}, must be at least 1")
        if sentinels < 1:
            raise UserError(f"data.objective.sentinels: is {sentinels}, must be at least 1")
        self.density = density
        self.span = span
        self._sentinels = sentinels

    @property
    def sentinels(self) -> int:
        """See the base class."""
        return self._sentinels

    def check(self, block_size: int) -> None:
        """See the base class."""
        spans = int(self._parts(np.array([block_size]))[1][0])
        if spans > self.sentinels:
            raise UserError(
                f"data.objective.sentinels: is {self.sentinels}, and {spans} spans of a piece of data.block_size "
                f"{block_size} are missing; raise it, or make pieces shorter"
            )

    def _parts(self, sizes: Ints) -> tuple[Ints, Ints]:
        """(N,) missing tokens, and (N,) the spans they form."""
        missing = np.clip(np.rint(sizes * self.density).astype(np.int64), 1, sizes - 1)
        spans = np.clip(np.rint(missing / self.span).astype(np.int64), 1, np.minimum(missing, sizes - missing))
        return missing, spans

    def lengths(self, sizes: Ints, chance: Floats) -> Ints:
        """See the base class."""
        missing, spans = self._parts(sizes)
        return np.stack([sizes - missing + spans, missing + spans], axis=1)

    def __call__(self, tokens: Ints, chance: float, sentinels: Ints, draw: np.random.RandomState) -> Pair:
        """See the base class. Unlike in T5's code, the last span need not be the end of the text."""
        missing, spans = (int(part[0]) for part in self._parts(np.array([len(tokens)])))
        gone, there = _cut(missing, spans, draw), _cut(len(tokens) - missing + 2, spans + 1, draw)
        there[0] -= 1
        there[-1] -= 1
        given, wanted, place = list[Ints](), list[Ints](), 0
        for number in range(spans):
            sign = sentinels[number : number + 1]
            middle = place + there[number]
            end = middle + gone[number]
            given += [tokens[place:middle], sign]
            wanted += [sign, tokens[middle:end]]
            place = end
        return np.concatenate([*given, tokens[place:]]), np.concatenate(wanted)


def _cut(total: int, parts: int, draw: np.random.RandomState) -> list[int]:
    """A number as a sum of others, each at least 1, all sums alike likely."""
    cuts = np.sort(draw.permutation(total - 1)[: parts - 1]) + 1
    sizes: list[int] = np.diff(np.concatenate([[0], cuts, [total]])).tolist()
    return sizes
