"""Training a unigram model of pieces, the same to the bit whenever it is trained."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

LONGEST_PIECE = 16
LONGEST_WORD = 32  # what is longer is cut: the probability of a longer one could underflow
SEED_WORDS = 100_000
SEEDS = 8
"""The first pieces are up to this many times those that are wanted."""
KEPT = 0.75
"""Share of the pieces that a round of pruning leaves."""
LEAST = 0.5
"""Pieces that are expected less often than this are dropped."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def unigram_pieces(counts: Mapping[str, int], size: int) -> list[tuple[str, float]]:
    """Pieces and their log probabilities (Kudo, 2018, arXiv:1804.10959), the likeliest first.

    Begins with the frequent substrings, estimates their probabilities by expectation maximisation, and drops those that
    the likelihood misses least, a quarter at a time. Single characters always stay.

    Args:
        counts: How often each word occurs; no piece crosses its ends.
        size: Number of pieces.
    """
    words: Counter[str] = Counter()
    for word, count in counts.items():
        for start in range(0, len(word), LONGEST_WORD):
            words[word[start : start + LONGEST_WORD]] += count
    texts = sorted(words)
    weights = np.array([words[text] for text in texts], np.float64)
    characters = sorted(set().union(*texts))
    seeds = _seeds(words, SEEDS * size)
    pieces = [*characters, *(piece for piece, _ in seeds)]
    within = Counter[str]()
    for text in texts:
        for sign in text:
            within[sign] += words[text]
    expected = np.array([*(within[sign] for sign in characters), *(score for _, score in seeds)], np.float64)
    lattice, own = _Lattice(texts, pieces), _Lattice(pieces, pieces, proper=True)
    while True:
        log_p = _log_probabilities(expected)
        for _ in range(2):
            expected = lattice.expected(log_p, weights)
            log_p = _log_probabilities(expected)
        if len(pieces) <= size:
            break
        loss = expected * (log_p - own.best(log_p))
        loss[expected < LEAST] = -np.inf
        loss[: len(characters)] = np.inf
        alive = int((loss > -np.inf).sum())
        kept = np.sort(np.argsort(-loss, kind="stable")[: min(alive, max(size, int(KEPT * len(pieces))))])
        pieces = [pieces[index] for index in kept]
        expected = expected[kept]
        lattice, own = lattice.with_pieces(kept), own.with_pieces(kept).with_texts(kept)
    scores = [round(float(score), 6) for score in log_p]
    return sorted(zip(pieces, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))


def _seeds(words: Counter[str], room: int) -> list[tuple[str, int]]:
    """The substrings that cover most characters, and how many; not those that are always followed by the same sign."""
    found: Counter[str] = Counter()
    for word, count in sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:SEED_WORDS]:
        for start in range(len(word) - 1):
            for stop in range(start + 2, min(len(word), start + LONGEST_PIECE) + 1):
                found[word[start:stop]] += count
    covered = {piece[:-1] for piece, count in found.items() if found.get(piece[:-1]) == count}
    scores = [(p, count * len(p)) for p, count in found.items() if count > 1 and p not in covered]
    return sorted(scores, key=lambda pair: (-pair[1], pair[0]))[:room]


def _log_probabilities(expected: Floats) -> Floats:
    """Of a Dirichlet posterior's mean in logarithms, which makes rare pieces rarer."""
    counts = torch.from_numpy(np.maximum(expected, LEAST))
    return (counts.digamma() - counts.sum().digamma()).numpy()


class _Lattice:
    """All ways to cut texts into pieces: an edge is a piece at a place of a text.

    Args:
        texts: What is cut.
        pieces: What it is cut into.
        proper: Leave out the edge that is the whole text.
    """

    def __init__(self, texts: Sequence[str], pieces: Sequence[str], proper: bool = False) -> None:
        numbers = {piece: number for number, piece in enumerate(pieces)}
        edges: list[tuple[int, int, int, int]] = []
        for text, letters in enumerate(texts):
            for start in range(len(letters)):
                for stop in range(start + 1, min(len(letters), start + LONGEST_PIECE) + 1):
                    piece = numbers.get(letters[start:stop])
                    if piece is not None and not (proper and stop - start == len(letters)):
                        edges.append((text, start, stop, piece))
        self.edges: Ints = np.array(edges, np.int64).reshape(-1, 4).T
        self.lengths: Ints = np.array([len(text) for text in texts], np.int64)

    def with_pieces(self, kept: Ints) -> "_Lattice":
        """Only these pieces, numbered anew."""
        numbers = np.full(max(int(self.edges[3].max(initial=0)), int(kept[-1])) + 1, -1)
        numbers[kept] = np.arange(len(kept))
        return self._renumbered(3, numbers, self.lengths)

    def with_texts(self, kept: Ints) -> "_Lattice":
        """Only these texts, numbered anew."""
        numbers = np.full(len(self.lengths), -1)
        numbers[kept] = np.arange(len(kept))
        return self._renumbered(0, numbers, self.lengths[kept])

    def _renumbered(self, column: int, numbers: Ints, lengths: Ints) -> "_Lattice":
        new = object.__new__(_Lattice)
        edges = self.edges[:, numbers[self.edges[column]] >= 0]
        edges[column] = numbers[edges[column]]
        new.edges, new.lengths = edges, lengths
        return new

    def _by(self, column: int) -> list[Ints]:
        """The edges in groups that share a start (1) or a stop (2), by that place."""
        order = np.argsort(self.edges[column], kind="stable")
        places = np.arange(int(self.lengths.max(initial=0)) + 2)
        cuts = np.searchsorted(self.edges[column][order], places)
        return [self.edges[:, order[cuts[i] : cuts[i + 1]]] for i in range(len(places) - 1)]

    def expected(self, log_p: Floats, weights: Floats) -> Floats:
        """How often each piece is used, over all cuts by their probability (forward and backward)."""
        p = np.exp(log_p)
        count, longest = len(self.lengths), int(self.lengths.max(initial=0))
        forward = np.zeros((count, longest + 1))
        forward[:, 0] = 1
        for stop, (text, start, _, piece) in enumerate(self._by(2)):
            if len(text):
                forward[:, stop] = np.bincount(text, forward[text, start] * p[piece], minlength=count)
        backward = np.zeros((count, longest + 1))
        backward[np.arange(count), self.lengths] = 1
        for start, (text, _, stop, piece) in reversed(list(enumerate(self._by(1)))):
            if len(text):
                backward[:, start] += np.bincount(text, backward[text, stop] * p[piece], minlength=count)
        text, start, stop, piece = self.edges
        whole = weights / backward[:, 0]
        used = forward[text, start] * p[piece] * backward[text, stop] * whole[text]
        result: Floats = np.bincount(piece, used, minlength=len(p)).astype(np.float64)
        return result

    def best(self, log_p: Floats) -> Floats:
        """The log probability of the likeliest cut of each text."""
        best = np.full((len(self.lengths), int(self.lengths.max(initial=0)) + 1), -np.inf)
        best[:, 0] = 0
        for stop, (text, start, _, piece) in enumerate(self._by(2)):
            np.maximum.at(best[:, stop], text, best[text, start] + log_p[piece])
        result: Floats = best[np.arange(len(self.lengths)), self.lengths]
        return result
