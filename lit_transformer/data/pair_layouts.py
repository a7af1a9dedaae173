"""How a sentence and its translation become what a network reads: two sequences, or one."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from lit_transformer.data.batch import IGNORED, PADDING, LanguageBatch, PairBatch, PrefixBatch
from lit_transformer.data.layouts import Truncation
from lit_transformer.data.token_file import Ints

Pair = tuple[Ints, Ints]


class Widths(Protocol):
    """Rounds the length of the longest row of a batch up."""

    def padded(self, lengths: Ints) -> Ints:
        """Lengths as they stand in a batch."""
        ...


class PairLayout:
    """Base of the layouts. A source always ends with the token that ends texts, and so does a target.

    Args:
        truncation: What a pair longer than ``data.pairs.max_len`` loses. Left out: such a pair is an error.
    """

    shares_tokens = False
    """Whether source and target stand in one sequence, and so must have one vocabulary."""

    def __init__(self, truncation: Truncation | None = None) -> None:
        self.truncation = truncation

    def lengths(self, texts: Ints) -> Ints:
        """(N, K) tokens of the K sequences that pairs (N, 2) of source and target tokens take."""
        raise NotImplementedError

    def shortened(self, pair: Pair, max_len: int) -> Pair:
        """What is left of a pair that is too long."""
        raise NotImplementedError

    def batch(
        self, pairs: Sequence[Pair], widths: Widths, start: int, end: int, filler: int, ids: Ints, window_tokens: int
    ) -> LanguageBatch:
        """The pairs as a batch; a pair of two empty texts with the id -1 is padding.

        Args:
            pairs: Source and target tokens.
            widths: How wide sequences are.
            start: The token that a target begins with.
            end: The token that ends a text.
            filler: The token written on padding.
            ids: The samples.
            window_tokens: Number of targets in the window.
        """
        raise NotImplementedError

    def _cut(self, text: Ints, keep: int) -> Ints:
        assert self.truncation is not None
        return self.truncation.cut(text, keep)


def _filled(rows: Sequence[Ints], widths: Widths, filler: int) -> torch.Tensor:
    width = int(widths.padded(np.array([max(1, max(map(len, rows)))]))[0])
    result = np.full((len(rows), width), filler, dtype=np.int64)
    for row, tokens in zip(result, rows, strict=True):
        row[: len(tokens)] = tokens
    return torch.from_numpy(result)


def _documents(rows: Sequence[Ints], like: torch.Tensor) -> torch.Tensor | None:
    """0, and -1 for padding; None where there is none."""
    if min(map(len, rows)) == like.shape[1]:
        return None
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    return torch.where(torch.arange(like.shape[1]) < lengths, 0, PADDING)


def _positions(documents: torch.Tensor | None, tokens: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    return positions.clone() if documents is None else positions.masked_fill(documents < 0, 0)


class EncoderDecoderLayout(PairLayout):
    """The source for the encoder; for the decoder the start token and the target. Each may have ``max_len`` tokens."""

    def lengths(self, texts: Ints) -> Ints:
        """See the base class: two sequences, each with one token more."""
        return texts + 1

    def shortened(self, pair: Pair, max_len: int) -> Pair:
        """See the base class: each text by itself."""
        return self._cut(pair[0], max_len - 1), self._cut(pair[1], max_len - 1)

    def batch(
        self, pairs: Sequence[Pair], widths: Widths, start: int, end: int, filler: int, ids: Ints, window_tokens: int
    ) -> PairBatch:
        """See the base class."""
        begin, stop, none = np.array([start]), np.array([end]), np.zeros(0, np.int64)
        real = [i >= 0 for i in ids.tolist()]
        sources = [np.concatenate([s, stop]) if r else none for (s, _), r in zip(pairs, real, strict=True)]
        inputs = [np.concatenate([begin, t]) if r else none for (_, t), r in zip(pairs, real, strict=True)]
        outputs = [np.concatenate([t, stop]) if r else none for (_, t), r in zip(pairs, real, strict=True)]
        source, tokens = _filled(sources, widths, filler), _filled(inputs, widths, filler)
        documents = _documents(inputs, tokens)
        return PairBatch(
            tokens=tokens,
            targets=_filled(outputs, widths, IGNORED),
            positions=_positions(documents, tokens),
            documents=documents,
            source=source,
            source_documents=_documents(sources, source),
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(window_tokens),
        )


class PrefixLayout(PairLayout):
    """One sequence for a prefix-LM or a decoder: the source and the token that ends it, then the target, which alone is
    predicted. The whole may have ``max_len`` tokens.
    """

    shares_tokens = True

    def lengths(self, texts: Ints) -> Ints:
        """See the base class: one sequence."""
        return np.asarray(texts.sum(axis=1, keepdims=True) + 1)

    def shortened(self, pair: Pair, max_len: int) -> Pair:
        """See the base class: the longer text loses first."""
        assert self.truncation is not None
        keep = self.truncation.shares(np.array([[len(pair[0]), len(pair[1])]]), max_len - 1)[0].tolist()
        return self._cut(pair[0], keep[0]), self._cut(pair[1], keep[1])

    def batch(
        self, pairs: Sequence[Pair], widths: Widths, start: int, end: int, filler: int, ids: Ints, window_tokens: int
    ) -> PrefixBatch:
        """See the base class."""
        stop, none = np.array([end]), np.zeros(0, np.int64)
        rows, outputs, given = [], [], []
        for (source, target), number in zip(pairs, ids.tolist(), strict=True):
            real = number >= 0
            rows.append(np.concatenate([source, stop, target]) if real else none)
            nothing = np.full(len(source), IGNORED)
            outputs.append(np.concatenate([nothing, target, stop]) if real else none)
            given.append(len(source) + 1 if real else 0)
        tokens = _filled(rows, widths, filler)
        documents = _documents(rows, tokens)
        return PrefixBatch(
            tokens=tokens,
            targets=_filled(outputs, widths, IGNORED),
            positions=_positions(documents, tokens),
            documents=documents,
            prefix=torch.arange(tokens.shape[1]) < torch.tensor(given).unsqueeze(1),
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(window_tokens),
        )
