"""BPE-dropout: the same sentence in other pieces each time it is trained on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import models

from lit_transformer.data.packing import seeded
from lit_transformer.data.token_file import Ints
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.errors import UserError


class BPEDropout:
    """Leaves out each merge with some probability (Provilkov et al., 2020, arXiv:1910.13267), in training only.

    In each pass over the data every word is cut anew, up to ``variety`` times for a frequent one, and its occurrences
    choose among these cuts: so a pass costs what its different words cost, not its length. All is drawn from the seed
    and the number of the pass.

    Args:
        rate: Probability that a merge is left out; 0.1 in the paper.
        variety: Most different cuts of a word in a pass.
    """

    def __init__(self, rate: float = 0.1, variety: int = 8) -> None:
        if not 0 < rate < 1:
            raise UserError(f"data.sampling.rate: is {rate}, must lie between 0 and 1")
        if variety < 1:
            raise UserError(f"data.sampling.variety: is {variety}, must be at least 1")
        self.rate = rate
        self.variety = variety


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """The stretches of a text that no token crosses, as the merges see them."""
    backend = tokenizer.backend
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text] if text else []
    return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


class DroppedText:
    """The texts of a split under BPE-dropout.

    Args:
        texts: The texts.
        tokenizer: One of the BPE kinds.
        dropout: How often merges are left out.
        seed: What the cuts depend on beside the number of the pass.

    Raises:
        UserError: A tokenizer without merges.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, dropout: BPEDropout, seed: int) -> None:
        self.dropout = dropout
        self.seed = seed
        self.merges = Merges(tokenizer)
        numbers: dict[str, int] = {}
        words: list[int] = []
        counts = []
        for text in texts:
            pieces = words_of(tokenizer, text)
            words += [numbers.setdefault(piece, len(numbers)) for piece in pieces]
            counts.append(len(pieces))
        self.words = np.array(words, dtype=np.int64)
        """Number of the word at each place of all texts."""
        self.starts: Ints = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.vocabulary = list(numbers)
        self._drawn: dict[int, _Pass] = {}

    def lengths(self, number: int) -> Ints:
        """(N,) tokens of each text in a pass."""
        return self._pass(number).text_lengths

    def text(self, number: int, index: int) -> Ints:
        """The tokens of a text in a pass."""
        drawn = self._pass(number)
        cuts = drawn.cuts[self.starts[index] : self.starts[index + 1]]
        parts = [drawn.tokens[drawn.cut_starts[cut] : drawn.cut_starts[cut + 1]] for cut in cuts.tolist()]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _pass(self, number: int) -> "_Pass":
        if number not in self._drawn:
            # Two are kept: windows run across the end of a pass.
            self._drawn = {known: self._drawn[known] for known in self._drawn if known == number - 1}
            self._drawn[number] = self._draw(number)
        return self._drawn[number]

    def _draw(self, number: int) -> "_Pass":
        draw = seeded(self.seed, number, 4)
        counts = np.bincount(self.words, minlength=len(self.vocabulary))
        variety = np.minimum(counts, self.dropout.variety)
        first = np.concatenate([[0], np.cumsum(variety)])
        cuts = [
            self.merges.cut(word, self.dropout.rate, draw)
            for word, times in zip(self.vocabulary, variety.tolist(), strict=True)
            for _ in range(times)
        ]
        lengths = np.array([len(cut) for cut in cuts], dtype=np.int64)
        chosen = first[self.words] + (draw.random_sample(len(self.words)) * variety[self.words]).astype(np.int64)
        sums = np.concatenate([[0], np.cumsum(lengths[chosen])])
        return _Pass(
            tokens=np.array([token for cut in cuts for token in cut], dtype=np.int64),
            cut_starts=np.concatenate([[0], np.cumsum(lengths)]),
            cuts=chosen,
            text_lengths=sums[self.starts[1:]] - sums[self.starts[:-1]],
        )


@dataclass(frozen=True)
class _Pass:
    """The cuts of all words (tokens, and where each cut starts in them), which one is at each place, and lengths."""

    tokens: Ints
    cut_starts: Ints
    cuts: Ints
    text_lengths: Ints


class Merges:
    """The merges of a BPE tokenizer, to be applied one by one.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not isinstance(tokenizer.backend.model, models.BPE):
            kind = type(tokenizer.backend.model).__name__
            raise UserError(f"data.sampling: BPEDropout needs a BPE tokenizer, not {kind}; leave it out")
        self.tokenizer = tokenizer

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return dict(self.tokenizer.backend.get_vocab(with_added_tokens=False))

    @cached_property
    def _ranks(self) -> dict[tuple[int, int], tuple[int, int]]:
        """The rank and the result of each merge."""
        ids, ranks = self._vocabulary, {}
        for rank, merge in enumerate(json.loads(self.tokenizer.backend.to_str())["model"]["merges"]):
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            ranks[ids[left], ids[right]] = (rank, ids[left + right])
        return ranks

    def cut(self, word: str, rate: float, draw: np.random.RandomState) -> list[int]:
        """The tokens of a word: at each step each possible merge is left out with the given probability."""
        unknown = self.tokenizer.special_id("unk")
        tokens = [self._vocabulary.get(sign, unknown) for sign in word]
        ids = [token for token in tokens if token is not None]
        ranks = self._ranks
        while len(ids) > 1:
            kept = draw.random_sample(len(ids) - 1) >= rate if rate else np.ones(len(ids) - 1, bool)
            best, place = None, -1
            for i, keep in enumerate(kept.tolist()):
                if keep:
                    found = ranks.get((ids[i], ids[i + 1]))
                    if found is not None and (best is None or found < best):
                        best, place = found, i
            if best is None:
                break
            ids[place : place + 2] = [best[1]]
        return ids
