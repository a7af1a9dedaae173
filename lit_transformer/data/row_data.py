"""What the DataModules whose samples are rows of unlike length have in common."""

from typing import Any

from lit_transformer.data.bucketing import BucketedLoader, RowBatches, RowEvaluationLoader, TokenBudget
from lit_transformer.data.cache import Cache
from lit_transformer.data.module import SharedData
from lit_transformer.errors import UserError


class RowData(SharedData):
    """Base of the DataModules over rows; a subclass has a ``corpus`` and writes ``rows``.

    Args:
        batches: How rows are put together, in training and evaluation.
        seed: Decides the order of the samples, and what is drawn for them.
        num_workers: Number of worker processes; 0 reads in the training process.
        cache_dir: Folder for what is prepared. Left out: ``$LIT_TRANSFORMER_CACHE`` or ``~/.cache/lit_transformer``.
    """

    corpus: Any
    """Where the rows come from: says which splits there are."""

    def __init__(
        self, batches: TokenBudget | None = None, seed: int = 0, num_workers: int = 0, cache_dir: str | None = None
    ) -> None:
        super().__init__()
        for name, value in (("seed", seed), ("num_workers", num_workers)):
            if value < 0:
                raise UserError(f"data.{name}: is {value}, must be at least 0")
        self.batches = batches or TokenBudget()
        self.seed = seed
        self.num_workers = num_workers
        self.cache = Cache(cache_dir)

    def rows(self, split: str, training: bool) -> RowBatches:
        """The rows of a split: as they are trained on (noise, random sub-words), or as they are evaluated."""
        raise NotImplementedError

    def has_split(self, split: str) -> bool:
        """Whether there is such a split."""
        return bool(self.corpus.has_split(split))

    def prepare_data(self) -> None:
        """Trains the tokenizer and tokenises the splits that training needs, as far as the cache does not hold them."""
        for split in ("train", "validation"):
            if self.has_split(split):
                self.rows(split, split == "train")

    def train_dataloader(self) -> Any:
        """Batches in a random order without end."""
        share = self._share()
        loader = BucketedLoader(self.rows("train", True), self.batches, self.seed, share, self.num_workers)
        loader.on_new_epoch = self._restart_epoch
        if share.rank == 0 and self.trainer is not None:
            loader.describe()
        return loader

    def val_dataloader(self) -> Any:
        """Each row of the validation split once."""
        return self._evaluation("validation")

    def test_dataloader(self) -> Any:
        """Each row of the test split once."""
        return self._evaluation("test")

    def predict_dataloader(self) -> Any:
        """The test split where there is one, else the validation split."""
        return self._evaluation("test" if self.has_split("test") else "validation")

    def _evaluation(self, split: str) -> RowEvaluationLoader:
        return RowEvaluationLoader(self.rows(split, False), self.batches, self._share(), self.num_workers)
