"""Denoising: a text with something missing to read, and what is missing to write."""

from functools import cached_property

import numpy as np

# The parts that are not named here are imported so that a recipe can name them by their short names.
from lit_transformer.data import files, hub, subwords  # noqa: F401
from lit_transformer.data.batch import PADDING, LanguageBatch
from lit_transformer.data.bucketing import RowBatches, TokenBudget
from lit_transformer.data.corpora import Corpus
from lit_transformer.data.objectives import Floats, Objective, SpanCorruption
from lit_transformer.data.packing import seeded
from lit_transformer.data.pair_layouts import EncoderDecoderLayout, Pair, PairLayout
from lit_transformer.data.row_data import RowData
from lit_transformer.data.token_file import Ints, TokenFile, prepared_tokenizer, prepared_tokens
from lit_transformer.data.tokenizers import Tokenizer, TokenizerKind
from lit_transformer.errors import UserError
from lit_transformer.vocabulary import Vocabulary

SENTINEL = "<extra_id_{}>"
"""T5's name of the token that stands for the missing span of a number."""


class DenoisingRows(RowBatches):
    """Pieces of documents, none longer than a block, each spoilt anew in each epoch: what is drawn depends on (seed,
    epoch, row) alone. Pieces of a single token are left out.

    Args:
        source: The tokens of the split.
        block_size: Most tokens of a piece.
        objective: What is missing.
        layout: How the two texts become what a network reads.
        tokenizer: Knows the special tokens.
        budget: Says how wide a batch is.
        seed: What is drawn depends on it.
    """

    def __init__(
        self,
        source: TokenFile,
        block_size: int,
        objective: Objective,
        layout: PairLayout,
        tokenizer: Tokenizer,
        budget: TokenBudget,
        seed: int,
    ) -> None:
        self.source = source
        self.block_size = block_size
        self.objective = objective
        self.layout = layout
        self.tokenizer = tokenizer
        self.budget = budget
        self.seed = seed
        # A document is stored between the tokens that begin and end it.
        starts, lengths = source.starts[:-1] + 1, np.maximum(np.diff(source.starts) - 2, 0)
        counts = -(-lengths // block_size)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        sizes = np.minimum(block_size, np.repeat(lengths, counts) - within * block_size)
        keep = sizes > 1
        self.starts: Ints = (np.repeat(starts, counts) + within * block_size)[keep]
        self.sizes: Ints = sizes[keep]
        self.sentinels: Ints = np.array(
            [tokenizer.backend.token_to_id(SENTINEL.format(i)) for i in range(objective.sentinels)], np.int64
        )
        self._known: tuple[int, Floats, Ints] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def _drawn(self, epoch: int) -> tuple[Floats, Ints]:
        """(N,) a number from 0 to 1 for each row, and (N, 2) tokens of its two texts."""
        if self._known is None or self._known[0] != epoch:
            chance = seeded(self.seed, epoch, 6).random_sample(len(self))
            self._known = epoch, chance, self.objective.lengths(self.sizes, chance)
        return self._known[1], self._known[2]

    def lengths(self, epoch: int) -> Ints:
        """See the base class."""
        return self.layout.lengths(self._drawn(epoch)[1])

    def target_counts(self, ids: Ints) -> Ints:
        """See the base class: what is missing, and its end."""
        counts = np.zeros(len(ids), dtype=np.int64)
        for place in np.flatnonzero(ids != PADDING).tolist():
            epoch, row = divmod(int(ids[place]), len(self))
            counts[place] = self._drawn(epoch)[1][row, 1] + 1
        return counts

    def pair(self, number: int) -> Pair:
        """What is read and what is written of a sample; empty for a row of padding."""
        if number == PADDING:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        epoch, row = divmod(number, len(self))
        start = int(self.starts[row])
        tokens = self.source.tokens[start : start + int(self.sizes[row])].astype(np.int64)
        return self.objective(tokens, self._drawn(epoch)[0][row], self.sentinels, seeded(self.seed, epoch, row, 7))

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """See the base class."""
        start, end, pad = self.tokenizer.start_id, self.tokenizer.eos_id, self.tokenizer.special_id("pad")
        assert start is not None and end is not None
        tokens = int(self.target_counts(ids).sum()) if window_tokens is None else window_tokens
        pairs = [self.pair(number) for number in ids.tolist()]
        return self.layout.batch(pairs, self.budget, start, end, end if pad is None else pad, ids, tokens)

    @property
    def identity(self) -> dict[str, int | str]:
        """The tokens, how they are cut, and what is missing."""
        return {
            "corpus": self.source.folder.name,
            "block_size": self.block_size,
            "objective": type(self.objective).__name__,
            "layout": type(self.layout).__name__,
        }


class DenoisingData(RowData):
    """Text with something missing: documents of a corpus, tokenised once and cut into pieces.

    ``SpanCorruption`` adds its sentinels to the vocabulary.

    Args:
        corpus: Where the documents come from; not a stream.
        tokenizer: How text becomes tokens; it needs a token that ends texts.
        objective: What is missing: SpanCorruption (left out), or PrefixSplit: all after a random place.
        layout: EncoderDecoderLayout (left out), or PrefixLayout for a prefix-LM or a decoder.
        block_size: Most tokens of a piece of text.
        batches: How pieces are put together, in training and evaluation.
        seed: Decides the order of the samples and what is missing.
        num_workers: Number of worker processes; 0 reads in the training process.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: TokenizerKind,
        objective: Objective | None = None,
        layout: PairLayout | None = None,
        block_size: int = 128,
        batches: TokenBudget | None = None,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(batches, seed, num_workers, cache_dir)
        if block_size < 2:
            raise UserError(f"data.block_size: is {block_size}, must be at least 2")
        if corpus.streaming:
            raise UserError("data.corpus.streaming: denoising reads prepared tokens; set it to false")
        self.corpus = corpus
        corpus.cache_dir = str(self.cache.folder)
        self.tokenizer_kind = tokenizer
        self.objective = objective or SpanCorruption()
        self.objective.check(block_size)
        self.layout = layout or EncoderDecoderLayout()
        self.block_size = block_size
        self._rows: dict[str, DenoisingRows] = {}

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer without sentinels."""
        tokenizer = prepared_tokenizer(self.corpus, self.tokenizer_kind, self.cache)
        if tokenizer.eos_id is None:
            raise UserError("data.tokenizer.special_tokens: denoising needs '<eos>' among them, which ends texts")
        return tokenizer

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained on the train split at the first use or taken from the cache, with sentinels."""
        return self._plain.with_special_tokens([SENTINEL.format(i) for i in range(self.objective.sentinels)])

    @property
    def vocabulary(self) -> Vocabulary:
        """What the network is told: number of tokens, special ids, longest sequence."""
        size = np.full(2, self.block_size)
        longest = self.layout.lengths(self.objective.lengths(size, np.array([0.0, 1.0 - 1e-9]))).max()
        return self.tokenizer.vocabulary(max_len=int(self.batches.padded(longest)))

    def rows(self, split: str, training: bool) -> DenoisingRows:
        """The pieces of a split; in evaluation they are spoilt in the same way each time.

        Raises:
            UserError: No text of two tokens.
        """
        if split not in self._rows:
            source = prepared_tokens(self.corpus, split, self._plain, self.cache)
            rows = DenoisingRows(
                source, self.block_size, self.objective, self.layout, self.tokenizer, self.batches, self.seed
            )
            if not len(rows):
                name = self.corpus.source(split if split in self.corpus.splits() else "train")
                raise UserError(f"{name}: the {split} split holds no text of two tokens")
            self._rows[split] = rows
        return self._rows[split]
