"""Language modelling behind a prefix that is read in both directions."""

import numpy as np
import torch
from numpy.typing import NDArray

from lit_transformer.data.batch import IGNORED, PADDING, PrefixBatch
from lit_transformer.data.language_modeling import LanguageModelingData
from lit_transformer.data.packing import BlockGrid, PackedBlocks, seeded
from lit_transformer.data.token_file import Ints, TokenFile
from lit_transformer.errors import UserError


class PrefixBlocks(PackedBlocks):
    """Blocks whose documents each begin with a prefix of random length: what is drawn depends on (seed, sample id).

    A document of a block of n tokens has a prefix of 1 to n, all alike likely, whose last token predicts the next.

    Args:
        source: The tokens of the split.
        block_size: Number T of positions in a block.
        grid: Where blocks are cut.
        filler: The token written on padding.
        seed: What is drawn depends on it.
    """

    def __init__(self, source: TokenFile, block_size: int, grid: BlockGrid, filler: int, seed: int) -> None:
        super().__init__(source, block_size, grid, filler)
        self.seed = seed

    def target_counts(self, ids: Ints) -> Ints:
        """(B,) number of targets behind the prefixes of each sample; 0 for padding rows (id -1)."""
        return np.asarray((self.batch(ids, 0).targets != IGNORED).sum(-1).numpy())

    def batch(self, ids: Ints, window_tokens: int | None = None) -> PrefixBatch:
        """The samples as a batch; ``window_tokens`` is left out for the number of targets in the batch itself."""
        plain = super().batch(ids, window_tokens)
        documents = torch.zeros_like(plain.tokens) if plain.documents is None else plain.documents
        prefix = torch.from_numpy(
            np.stack([self._prefix(*row) for row in zip(documents.numpy(), ids.tolist(), strict=True)])
        )
        # The last token of a prefix already predicts.
        silent = prefix.clone()
        silent[:, :-1] &= prefix[:, 1:] & (documents[:, 1:] == documents[:, :-1])
        silent[:, -1] = False
        targets = plain.targets.masked_fill(silent, IGNORED)
        return PrefixBatch(
            tokens=plain.tokens,
            targets=targets,
            positions=plain.positions,
            ids=plain.ids,
            window_tokens=(targets != IGNORED).sum() if window_tokens is None else plain.window_tokens,
            documents=plain.documents,
            prefix=prefix,
        )

    def _prefix(self, documents: Ints, sample: int) -> NDArray[np.bool_]:
        """(T,) which places of a row belong to the prefix of their document."""
        epoch, number = divmod(max(sample, 0), len(self))
        count = int(documents.max()) + 1
        chance = seeded(self.seed, epoch, number, 8).random_sample(max(1, count))
        prefix = np.zeros(len(documents), dtype=bool)
        for document in range(count):
            places = np.flatnonzero(documents == document)
            prefix[places[: 1 + int(chance[document] * len(places))]] = True
        return np.asarray(prefix & (documents != PADDING))


class PrefixLanguageModelingData(LanguageModelingData):
    """Text for a prefix-LM: the documents of a block begin with a prefix of random length, which is read in both
    directions; what follows is predicted (Raffel et al., 2020, arXiv:1910.10683).

    Prefixes differ from epoch to epoch; in evaluation they are always the same, so the loss is that of the tokens
    behind them, a half of the split. The arguments are those of ``LanguageModelingData``, without streams.
    """

    def blocks(self, split: str, grid: BlockGrid) -> PackedBlocks:
        """See the base class.

        Raises:
            UserError: The corpus is a stream.
        """
        if self.corpus.streaming:
            raise UserError("data.corpus.streaming: prefixes are drawn for prepared tokens; set it to false")
        return PrefixBlocks(self.tokens(split), self.block_size, grid, self.filler, self.seed)
