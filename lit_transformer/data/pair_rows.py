"""Sentences with their translations, as a loader reads them."""

import numpy as np

from lit_transformer.data.batch import PADDING, LanguageBatch
from lit_transformer.data.bpe_dropout import DroppedText
from lit_transformer.data.bucketing import RowBatches, TokenBudget
from lit_transformer.data.field_file import FieldFile
from lit_transformer.data.pair_layouts import Pair, PairLayout
from lit_transformer.data.token_file import Ints
from lit_transformer.data.tokenizer import Tokenizer


class PairRows(RowBatches):
    """The pairs of a split.

    Args:
        files: Token ids of sources and of targets; a pair that is skipped has empty ones.
        layout: How a pair becomes what a network reads.
        tokenizer: Knows the special tokens.
        max_len: Most tokens of a sequence.
        budget: Says how wide a batch is.
        dropped: Sources and targets under BPE-dropout, in place of those of the files.
    """

    def __init__(
        self,
        files: tuple[FieldFile, FieldFile],
        layout: PairLayout,
        tokenizer: Tokenizer,
        max_len: int,
        budget: TokenBudget,
        dropped: tuple[DroppedText, DroppedText] | None = None,
    ) -> None:
        self.files = files
        self.layout = layout
        self.tokenizer = tokenizer
        self.max_len = max_len
        self.budget = budget
        self.dropped = dropped
        plain = np.concatenate([file.lengths for file in files], axis=1)
        self.places: Ints = np.flatnonzero(plain.min(axis=1) > 0)
        """Which pairs of the split there are: those that are not skipped."""
        self._plain: Ints = plain[self.places]
        self._known: tuple[int, Ints, Ints] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def texts(self, epoch: int) -> Ints:
        """(N, 2) tokens of the source and target of each pair, without special ones, before truncation."""
        if self.dropped is None:
            return self._plain
        return np.stack([text.lengths(epoch)[self.places] for text in self.dropped], axis=1)

    def lengths(self, epoch: int) -> Ints:
        """See the base class."""
        return self._lengths(epoch)[0]

    def _lengths(self, epoch: int) -> tuple[Ints, Ints]:
        """(N, K) tokens of each sequence, and (N,) targets, after truncation."""
        epoch = 0 if self.dropped is None else epoch
        if self._known is None or self._known[0] != epoch:
            texts = self.texts(epoch)
            lengths = self.layout.lengths(texts)
            targets = texts[:, 1] + 1
            for row in np.flatnonzero(lengths.max(axis=1) > self.max_len).tolist():
                pair = self._fitting(epoch, row)
                lengths[row], targets[row] = self._sizes(pair), len(pair[1]) + 1
            self._known = epoch, lengths, targets
        return self._known[1], self._known[2]

    def target_counts(self, ids: Ints) -> Ints:
        """See the base class: the target's tokens and its end."""
        counts = np.zeros(len(ids), dtype=np.int64)
        for epoch in np.unique(ids[ids != PADDING] // len(self)).tolist():
            mine = (ids != PADDING) & (ids // len(self) == epoch)
            counts[mine] = self._lengths(epoch)[1][ids[mine] % len(self)]
        return counts

    def _sizes(self, pair: Pair) -> Ints:
        return np.asarray(self.layout.lengths(np.array([[len(text) for text in pair]]))[0])

    def _fitting(self, epoch: int, row: int) -> Pair:
        """The source and target of a pair; as the tokenizer cuts them, then shortened, where it is too long."""
        place = int(self.places[row])
        if self.dropped is not None:
            pair = self.dropped[0].text(epoch, place), self.dropped[1].text(epoch, place)
            if self._sizes(pair).max() <= self.max_len:
                return pair
        pair = self.files[0].texts(place)[0], self.files[1].texts(place)[0]
        return pair if self._sizes(pair).max() <= self.max_len else self.layout.shortened(pair, self.max_len)

    def pair(self, number: int) -> Pair:
        """Source and target of a sample; empty for a row of padding."""
        if number == PADDING:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        epoch, row = divmod(number, len(self))
        return self._fitting(epoch, row)

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """See the base class."""
        start, end = self.tokenizer.start_id, self.tokenizer.eos_id
        assert start is not None and end is not None
        filler = self.tokenizer.special_id("pad")
        tokens = int(self.target_counts(ids).sum()) if window_tokens is None else window_tokens
        pairs = [self.pair(number) for number in ids.tolist()]
        return self.layout.batch(pairs, self.budget, start, end, end if filler is None else filler, ids, tokens)

    @property
    def identity(self) -> dict[str, int | str]:
        """The pairs, how they are laid out and cut into pieces."""
        noise = {} if self.dropped is None else {"sampling.rate": str(self.dropped[0].dropout.rate)}
        corpus = " ".join(file.folder.name for file in self.files)
        return {"corpus": corpus, "max_len": self.max_len, "layout": type(self.layout).__name__, **noise}
