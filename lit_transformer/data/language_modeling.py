"""The DataModule of language modelling: a corpus, a tokenizer, blocks."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

# The parts that are not named here are imported so that a recipe can name them by their short names.
from lit_transformer.data import files, hub, subwords  # noqa: F401
from lit_transformer.data.batch_size import AcrossDevices, rows_on_each
from lit_transformer.data.cache import Cache
from lit_transformer.data.corpora import Corpus
from lit_transformer.data.loaders import EndlessLoader, EvaluationLoader, TrainLoader
from lit_transformer.data.module import SharedData
from lit_transformer.data.packing import BlockGrid, EvaluationGrid, FixedGrid, PackedBlocks, ShiftedGrid
from lit_transformer.data.streaming import BlockStream, StreamLoader
from lit_transformer.data.token_file import Statistics, TokenFile, prepared_tokenizer, prepared_tokens
from lit_transformer.data.tokenizers import Tokenizer, TokenizerKind
from lit_transformer.errors import UserError
from lit_transformer.vocabulary import Vocabulary


class LanguageModelingData(SharedData):
    """Text for predicting the next token: documents of a corpus, tokenised once and packed into blocks.

    A streaming corpus is tokenised while training and never stored; only its tokenizer (trained on one pass) and its
    validation split are.

    The tokenizer is trained on the train split. Tokenizer and tokens are kept in a cache, under the content they were
    made from. A block may hold several documents, told apart by ``documents`` and ``positions`` of the batch. Every
    token of a document is predicted, the first one from the token that begins (or else ends) documents; a tokenizer
    that has neither leaves the first token of a document unpredicted.

    Args:
        corpus: Where the documents come from.
        tokenizer: How text becomes tokens.
        block_size: Number T of tokens in a block; the network's ``max_len`` where that is left out.
        batch_size: Number of blocks in a batch, in training and evaluation: on each rank, or ``AcrossDevices``.
        grid: Where blocks are cut: ``ShiftedGrid`` cuts at other places in each epoch, ``FixedGrid`` at the same.
        seed: Decides the order of the samples, together with their number alone.
        num_workers: Number of worker processes; 0 reads in the training process: enough for packed tokens.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
        evaluation_grid: Where blocks are cut in evaluation: ``FixedGrid`` side by side, ``StridedGrid`` overlapping.
            Left out: side by side.
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
        evaluation_grid: EvaluationGrid | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("block_size", block_size, 1),
            ("batch_size", rows_on_each(batch_size, 1), 1),
            ("seed", seed, 0),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise UserError(f"data.{name}: is {value}, must be at least {least}")
        if corpus.streaming and num_workers:
            raise UserError("data.num_workers: a streaming corpus is read in the training process; set it to 0")
        self.corpus = corpus
        self.tokenizer_kind = tokenizer
        self.block_size = block_size
        self.batch_size = batch_size
        self.grid = grid(seed)
        self.evaluation_grid = evaluation_grid or FixedGrid()
        self.seed = seed
        self.num_workers = num_workers
        self.cache = Cache(cache_dir)
        corpus.cache_dir = str(self.cache.folder)
        self._tokens: dict[str, TokenFile] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained on the train split at the first use or taken from the cache."""
        return prepared_tokenizer(self.corpus, self.tokenizer_kind, self.cache)

    @property
    def vocabulary(self) -> Vocabulary:
        """What the network is told: number of tokens, special ids, block size."""
        return self.tokenizer.vocabulary(max_len=self.block_size)

    def tokens(self, split: str) -> TokenFile:
        """The token ids of a split, prepared at the first use or taken from the cache."""
        if split not in self._tokens:
            self._tokens[split] = prepared_tokens(self.corpus, split, self.tokenizer, self.cache)
        return self._tokens[split]

    def statistics(self, split: str) -> Statistics:
        """Documents, tokens, targets, bytes and words of a split, for bits per byte and perplexity per word."""
        return self.tokens(split).statistics

    def prepare_data(self) -> None:
        """Trains the tokenizer and writes the token files that the cache does not hold."""
        for split in ("train", "validation"):
            if self.corpus.has_split(split) and not (self.corpus.streaming and split == "train"):
                self.tokens(split)

    def train_dataloader(self) -> Any:
        """Blocks in a random order without end; of a stream, in its order."""
        loader: EndlessLoader
        share = self._share()
        rows = rows_on_each(self.batch_size, share.world_size)
        if self.corpus.streaming:
            stream = BlockStream(self.corpus, self.tokenizer, self.block_size, self.seed)
            loader = StreamLoader(stream, rows, share)
        else:
            blocks = self.blocks("train", self.grid)
            loader = TrainLoader(blocks, rows, self.seed, share, self.num_workers)
        loader.on_new_epoch = self._restart_epoch
        return loader

    def val_dataloader(self) -> Any:
        """Blocks of the validation split, each token predicted exactly once."""
        return self._evaluation("validation")

    def test_dataloader(self) -> Any:
        """Blocks of the test split, each token predicted exactly once."""
        return self._evaluation("test")

    def predict_dataloader(self) -> Any:
        """The test split where the corpus has one, else the validation split."""
        return self._evaluation("test" if self.corpus.has_split("test") else "validation")

    def _evaluation(self, split: str) -> EvaluationLoader:
        blocks = self.blocks(split, self.evaluation_grid)
        share = self._share()
        return EvaluationLoader(blocks, rows_on_each(self.batch_size, share.world_size), share, self.num_workers)

    def blocks(self, split: str, grid: BlockGrid) -> PackedBlocks:
        """The samples of a split."""
        return PackedBlocks(self.tokens(split), self.block_size, grid, self.filler)

    @property
    def filler(self) -> int:
        """The token written on padding."""
        pad = self.tokenizer.special_id("pad")
        return 0 if pad is None else pad
