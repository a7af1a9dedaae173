"""Several corpora at once, in the shares that a recipe says."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from lit_transformer.data.batch import LanguageBatch
from lit_transformer.data.batch_size import AcrossDevices
from lit_transformer.data.corpora import Corpus, Document, digest
from lit_transformer.data.language_modeling import LanguageModelingData
from lit_transformer.data.loaders import SampleOrder
from lit_transformer.data.packing import BlockGrid, EvaluationGrid, PackedBlocks, ShiftedGrid
from lit_transformer.data.token_file import Ints, prepared_tokens
from lit_transformer.data.tokenizers import TokenizerKind
from lit_transformer.errors import UserError


class MixedCorpus(Corpus):
    """Several corpora as one: splits are put together, one corpus after the other.

    The tokenizer is trained on all of them, and validation and test read each text once. What shares they have in
    training is said by ``weights``.

    Args:
        corpora: The corpora; none of them a stream.
        weights: Share of each in training, in any unit: ``[3, 1]`` draws three quarters of the blocks from the first,
            however long it is. Left out: as much as each holds.
    """

    def __init__(self, corpora: list[Corpus], weights: list[float] | None = None) -> None:
        if len(corpora) < 2:
            raise UserError(f"data.corpus.corpora: needs at least two to mix, got {len(corpora)}")
        if any(corpus.streaming for corpus in corpora):
            raise UserError("data.corpus.corpora: a stream cannot be mixed; set streaming to false")
        if weights is not None and len(weights) != len(corpora):
            raise UserError(f"data.corpus.weights: names {len(weights)}, there are {len(corpora)} corpora")
        if weights is not None and not all(0 < weight < float("inf") for weight in weights):
            raise UserError("data.corpus.weights: must all be above 0; leave out a corpus that is to have no share")
        self.corpora = corpora
        self.weights = weights

    def splits(self) -> Sequence[str]:
        """The splits that one of them has; all have a train split."""
        return tuple(
            split for split in ("train", "validation", "test") if any(each.has_split(split) for each in self.corpora)
        )

    def having(self, split: str) -> list[Corpus]:
        """The corpora that have a split.

        Raises:
            UserError: One has no train split.
        """
        found = [corpus for corpus in self.corpora if corpus.has_split(split)]
        if split == "train" and len(found) < len(self.corpora):
            raise UserError("data.corpus.corpora: each needs a train split")
        for corpus in found:
            corpus.cache_dir = self.cache_dir
        return found

    def read(self, split: str) -> Iterator[Document]:
        """The documents of all of them."""
        for corpus in self.having(split):
            yield from corpus.documents(split)

    def contents(self, split: str) -> str:
        """Those of all of them; weights do not count."""
        return digest("mixed", split, *(corpus.fingerprint(split) for corpus in self.having(split)))


class MixedBlocks:
    """The blocks of several corpora: an epoch holds as many as all of them together, in the shares that are wanted.

    A sample id is ``epoch * len(blocks) + number``, and which block of which corpus it means is a pure function of it:
    each corpus is gone through in random orders, one pass after the other, at its own pace.

    Args:
        parts: The blocks of each corpus.
        weights: Share of each.
        seed: Decides the order within each corpus.
    """

    def __init__(self, parts: Sequence[PackedBlocks], weights: Sequence[float], seed: int) -> None:
        self.parts = list(parts)
        total = sum(map(len, parts))
        exact = np.asarray(weights, np.float64) / np.sum(weights) * total
        counts = np.maximum(np.floor(exact).astype(np.int64), 1)
        for place in np.argsort(-(exact - counts), kind="stable")[: max(0, total - int(counts.sum()))]:
            counts[place] += 1
        self.counts: Ints = counts
        """Blocks of each corpus in an epoch."""
        self.bounds: Ints = np.concatenate([[0], np.cumsum(counts)])
        self.orders = [SampleOrder(len(part), seed + 1 + number) for number, part in enumerate(parts)]

    def __len__(self) -> int:
        return int(self.bounds[-1])

    @property
    def source(self) -> "MixedBlocks":
        """Has the name that a run's place in the data is bound to."""
        return self

    @property
    def folder(self) -> "MixedBlocks":
        """See ``source``."""
        return self

    @property
    def name(self) -> str:
        """What the parts are made of, and their shares."""
        return digest(
            *(f"{part.source.folder.name} {count}" for part, count in zip(self.parts, self.counts, strict=True))
        )

    @property
    def block_size(self) -> int:
        """Number T of positions in a block."""
        return self.parts[0].block_size

    @property
    def grid(self) -> BlockGrid:
        """Where blocks are cut."""
        return self.parts[0].grid

    def _origin(self, sample: int) -> tuple[int, Ints]:
        """Which corpus a sample is of, and its id there."""
        epoch, number = divmod(sample, len(self))
        part = int(np.searchsorted(self.bounds, number, side="right")) - 1
        place = epoch * int(self.counts[part]) + number - int(self.bounds[part])
        return part, self.orders[part](place, place + 1)

    def target_counts(self, ids: Ints) -> Ints:
        """(B,) number of targets in each sample."""
        origins = [self._origin(sample) for sample in ids.tolist()]
        return np.concatenate([self.parts[part].target_counts(own) for part, own in origins])

    def batch(self, ids: Ints, window_tokens: int | None = None) -> LanguageBatch:
        """The samples as a batch; ``window_tokens`` is left out for the number of targets in the batch itself."""
        rows = [self.parts[part].batch(own, 0) for part, own in (self._origin(sample) for sample in ids.tolist())]
        documents = None
        if any(row.documents is not None for row in rows):
            documents = torch.cat([torch.zeros_like(r.tokens) if r.documents is None else r.documents for r in rows])
        batch = LanguageBatch(
            tokens=torch.cat([row.tokens for row in rows]),
            targets=torch.cat([row.targets for row in rows]),
            positions=torch.cat([row.positions for row in rows]),
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(0 if window_tokens is None else window_tokens),
            documents=documents,
        )
        if window_tokens is None:
            batch.window_tokens = batch.target_count
        return batch


class MixedLanguageModelingData(LanguageModelingData):
    """Text of several corpora for predicting the next token, mixed by weight: ``LanguageModelingData`` of a
    ``MixedCorpus``.

    Args:
        corpus: The corpora and their weights.
        tokenizer: How text becomes tokens; trained on all of them.
        block_size: Number T of tokens in a block; the network's ``max_len`` where that is left out.
        batch_size: Number of blocks in a batch, in training and evaluation: on each rank, or ``AcrossDevices``.
        grid: Where blocks are cut: ``ShiftedGrid`` cuts at other places in each epoch, ``FixedGrid`` at the same.
        seed: Decides the order of the samples, together with their number alone.
        num_workers: Number of worker processes; 0 reads in the training process: enough for packed tokens.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
        evaluation_grid: Where blocks are cut in evaluation; left out: side by side.
    """

    corpus: MixedCorpus

    def __init__(
        self,
        corpus: MixedCorpus,
        tokenizer: TokenizerKind,
        block_size: int = 256,
        batch_size: int | AcrossDevices = 32,
        grid: Callable[[int], BlockGrid] = ShiftedGrid,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str | None = None,
        evaluation_grid: EvaluationGrid | None = None,
    ) -> None:
        super().__init__(corpus, tokenizer, block_size, batch_size, grid, seed, num_workers, cache_dir, evaluation_grid)

    def prepare_data(self) -> None:
        """Trains the tokenizer and writes the token files that the cache does not hold."""
        self.blocks("train", self.grid)
        if self.corpus.has_split("validation"):
            self.tokens("validation")

    def blocks(self, split: str, grid: BlockGrid) -> PackedBlocks:
        """The samples of a split: of train by weight."""
        if split != "train":
            return super().blocks(split, grid)
        files = [prepared_tokens(each, split, self.tokenizer, self.cache) for each in self.corpus.having(split)]
        parts = [PackedBlocks(file, self.block_size, grid, self.filler) for file in files]
        weights = self.corpus.weights or [float(len(part)) for part in parts]
        return MixedBlocks(parts, weights, self.seed)  # type: ignore[return-value]  # what a loader asks of blocks
