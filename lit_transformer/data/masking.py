"""What a masked language model has to guess: which tokens of a text are hidden, and how."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import decoders, models

from lit_transformer.data.batch import IGNORED
from lit_transformer.data.token_file import Ints
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.errors import UserError

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Symbols:
    """What masking needs to know of the tokens of a vocabulary.

    Args:
        mask_id: Stands for a hidden token.
        special: (V,) the tokens that stand for no text, which are never hidden.
        ordinary: The others.
        inside_start: (V,) tokens that may go on with a word that another began.
        inside_end: (V,) tokens that such a one may follow.
    """

    mask_id: int
    special: Flags
    ordinary: Ints
    inside_start: Flags
    inside_end: Flags

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Symbols":
        """Those of a tokenizer.

        Raises:
            UserError: It has no mask token.
        """
        mask_id = tokenizer.special_id("mask")
        if mask_id is None:
            raise UserError(
                "data.tokenizer: masked language modelling needs a token that hides others; add '<mask>' to "
                "data.tokenizer.special_tokens"
            )
        names = {number: name for name, number in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
        special = np.ones(tokenizer.size, dtype=bool)
        special[[number for number in names if number not in tokenizer.special_ids]] = False
        start, end = np.zeros(tokenizer.size, dtype=bool), np.zeros(tokenizer.size, dtype=bool)
        for number, name in names.items():
            start[number], end[number] = _inside(tokenizer, name)
        return cls(mask_id, special, np.flatnonzero(~special), start & ~special, end & ~special)

    def words(self, tokens: Ints, able: Ints) -> Ints:
        """The number of the word that each of the places ``able`` of a text belongs to."""
        before, here = tokens[able[:-1]], tokens[able[1:]]
        goes_on = (np.diff(able) == 1) & self.inside_end[before] & self.inside_start[here]
        return np.concatenate([[0], np.cumsum(~goes_on)])


def _inside(tokenizer: Tokenizer, name: str) -> tuple[bool, bool]:
    """Whether a token can be a later part of a word, and whether it can have one behind it."""
    model = tokenizer.backend.model
    if isinstance(model, models.WordLevel):
        return False, False
    if isinstance(model, models.WordPiece):
        return name.startswith(model.continuing_subword_prefix), True
    signs = name[:1], name[-1:]
    if isinstance(tokenizer.backend.decoder, decoders.ByteLevel):
        # The 256 symbols of bytes: letters of other scripts are several bytes, all of them from 128 on.
        return tuple(sign.isalnum() if sign < "\x80" else sign <= "\xff" or sign >= "\u0122" for sign in signs)  # type: ignore[return-value]
    return signs[0].isalnum(), signs[1].isalnum()


class TokenMasking:
    """BERT's masking (Devlin et al., 2019, arXiv:1810.04805): a share of the tokens, each by itself.

    Of the chosen tokens most are hidden, some become a random token and the rest stay; all are to be guessed.

    Args:
        share: Share of the tokens of a block that are chosen; at least one is.
        hidden: Share of those that the mask token replaces.
        random: Share of those that a random token replaces.
    """

    def __init__(self, share: float = 0.15, hidden: float = 0.8, random: float = 0.1) -> None:
        if not 0 < share < 1:
            raise UserError(f"data.masking.share: is {share}, must lie between 0 and 1")
        for name, value in (("hidden", hidden), ("random", random)):
            if not 0 <= value <= 1:
                raise UserError(f"data.masking.{name}: is {value}, must lie between 0 and 1")
        if hidden + random > 1:
            raise UserError(f"data.masking.random: is {random}, and with hidden {hidden} more than all")
        self.share = share
        self.hidden = hidden
        self.random = random

    def count(self, able: int) -> int:
        """How many of ``able`` tokens are chosen."""
        return max(1, round(self.share * able)) if able else 0

    def choose(self, tokens: Ints, able: Ints, symbols: Symbols, draw: np.random.RandomState) -> Ints:
        """The places to be guessed, out of ``able``."""
        return draw.permutation(able)[: self.count(len(able))]

    def __call__(self, tokens: Ints, real: Flags, symbols: Symbols, draw: np.random.RandomState) -> tuple[Ints, Ints]:
        """The text as the model sees it, and the targets: (T,) each.

        Args:
            tokens: (T,) the text.
            real: (T,) False for padding.
            symbols: Of the vocabulary.
            draw: Where randomness comes from.
        """
        able = np.flatnonzero(real & ~symbols.special[tokens])
        places = np.sort(self.choose(tokens, able, symbols, draw))
        targets = np.full_like(tokens, IGNORED)
        targets[places] = tokens[places]
        seen, fate = tokens.copy(), draw.random_sample(len(places))
        seen[places[fate < self.hidden]] = symbols.mask_id
        swapped = places[(fate >= self.hidden) & (fate < self.hidden + self.random)]
        seen[swapped] = symbols.ordinary[draw.randint(len(symbols.ordinary), size=len(swapped))]
        return seen, targets


class WholeWordMasking(TokenMasking):
    """The same, but all parts of a word are chosen together, so that one does not give away the others (BERT's release
    of May 2019).

    A word is a run of letters and digits, or what the tokenizer marks as one.

    Args:
        share: Share of the tokens of a block that are chosen; at least one word is.
        hidden: Share of those that the mask token replaces.
        random: Share of those that a random token replaces.
    """

    def choose(self, tokens: Ints, able: Ints, symbols: Symbols, draw: np.random.RandomState) -> Ints:
        """See the base class; a word that would be too many is passed over."""
        if not len(able):
            return able
        numbers = symbols.words(tokens, able)
        starts = np.searchsorted(numbers, np.arange(numbers[-1] + 2))
        room, chosen = self.count(len(able)), list[Ints]()
        for word in draw.permutation(numbers[-1] + 1):
            places = able[starts[word] : starts[word + 1]]
            if len(places) <= room or not chosen:
                chosen.append(places)
                room -= len(places)
            if room <= 0:
                break
        return np.concatenate(chosen)
