"""The DataModule of masked language modelling: blocks of text with tokens to guess."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from lit_transformer.data.batch import PADDING, LanguageBatch
from lit_transformer.data.batch_size import AcrossDevices
from lit_transformer.data.corpora import Corpus
from lit_transformer.data.language_modeling import LanguageModelingData
from lit_transformer.data.masking import Flags, Symbols, TokenMasking
from lit_transformer.data.packing import BlockGrid, PackedBlocks, ShiftedGrid, seeded
from lit_transformer.data.token_file import Ints, TokenFile
from lit_transformer.data.tokenizers import TokenizerKind
from lit_transformer.errors import UserError
from lit_transformer.vocabulary import Vocabulary


class MaskedBlocks(PackedBlocks):
    """Blocks in which tokens are hidden, anew in each epoch: what is drawn depends on (seed, sample id) alone.

    Args:
        source: The tokens of the split.
        block_size: Number T of positions in a block.
        grid: Where blocks are cut.
        filler: The token written on padding.
        masking: What is hidden, and how.
        symbols: Of the vocabulary.
        seed: What is drawn depends on it.
    """

    ahead = 0

    def __init__(
        self,
        source: TokenFile,
        block_size: int,
        grid: BlockGrid,
        filler: int,
        masking: TokenMasking,
        symbols: Symbols,
        seed: int,
    ) -> None:
        super().__init__(source, block_size, grid, filler)
        self.masking = masking
        self.symbols = symbols
        self.seed = seed

    def target_counts(self, ids: Ints) -> Ints:
        """(B,) number of tokens to guess in each sample; 0 for padding rows (id -1)."""
        batch = self.batch(ids, 0)
        return (batch.targets >= 0).sum(-1).numpy()

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """The samples as a batch; ``window_tokens`` is left out for the number of targets in the batch itself."""
        batch = super().batch(ids, window_tokens)
        real = torch.ones_like(batch.tokens) if batch.documents is None else batch.documents
        tokens, is_real = batch.tokens.numpy(), (real != PADDING).numpy()
        rows = [self._row(*row) for row in zip(tokens, is_real, ids.tolist(), strict=True)]
        batch.tokens, batch.targets = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        if window_tokens is None:
            batch.window_tokens = batch.target_count
        return batch

    def _row(self, tokens: Ints, real: Flags, sample: int) -> tuple[Ints, Ints]:
        epoch, number = divmod(max(sample, 0), len(self))
        return self.masking(tokens, real, self.symbols, seeded(self.seed, epoch, number, 5))


class MaskedLanguageModelingData(LanguageModelingData):
    """Text with hidden tokens, for an encoder to guess: documents of a corpus, tokenised once and packed into blocks.

    A block may hold several documents, which do not see each other. What is hidden differs from epoch to epoch, and in
    evaluation is always the same.

    Args:
        corpus: Where the documents come from; not a stream.
        tokenizer: How text becomes tokens; it needs a mask token.
        block_size: Number T of tokens in a block; the network's ``max_len`` where that is left out.
        batch_size: Number of blocks in a batch, in training and evaluation: on each rank, or ``AcrossDevices``.
        grid: Where blocks are cut: ``ShiftedGrid`` cuts at other places in each epoch, ``FixedGrid`` at the same.
        seed: Decides the order of the samples and what is hidden.
        num_workers: Number of worker processes; 0 reads in the training process.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
        masking: What is hidden, and how.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: TokenizerKind,
        block_size: int = 256,
        batch_size: int | AcrossDevices = 32,
        grid: Callable[[int], BlockGrid] = ShiftedGrid,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
        masking: TokenMasking | None = None,
    ) -> None:
        super().__init__(corpus, tokenizer, block_size, batch_size, grid, seed, num_workers, cache_dir)
        if corpus.streaming:
            raise UserError("data.corpus.streaming: masked language modelling reads prepared tokens; set it to false")
        self.masking = masking or TokenMasking()

    @cached_property
    def symbols(self) -> Symbols:
        """What masking needs to know of the tokens."""
        return Symbols.of(self.tokenizer)

    @property
    def vocabulary(self) -> Vocabulary:
        """What the network is told: number of tokens, special ids, block size."""
        self.symbols  # noqa: B018  a tokenizer without a mask token is refused before anything is built
        return super().vocabulary

    def blocks(self, split: str, grid: BlockGrid) -> PackedBlocks:
        """See the base class."""
        return MaskedBlocks(
            self.tokens(split), self.block_size, grid, self.filler, self.masking, self.symbols, self.seed
        )
