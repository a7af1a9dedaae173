"""How a prompt and its response become what a network reads."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lit_transformer.data.batch import IGNORED, PADDING, LanguageBatch, PairBatch, PrefixBatch
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.token_file import Ints
from lit_transformer.errors import UserError

Flags = NDArray[np.bool_]


class DialogueLayout:
    """Base of the layouts."""

    def lengths(self, sizes: Ints, given: Ints) -> Ints:
        """(N, K) tokens of the K sequences of conversations of ``sizes`` tokens, of which ``given`` come before the
        first that is to be written.
        """
        raise NotImplementedError

    def batch(
        self, rows: Sequence[tuple[Ints, Flags]], budget: TokenBudget, start: int, filler: int, ids: Ints, targets: int
    ) -> LanguageBatch:
        """Conversations as a batch; an empty one is a row of padding.

        Args:
            rows: Tokens, and which of them are to be written.
            budget: Says how wide a batch is.
            start: The token that a decoder beside an encoder begins with.
            filler: The token written on padding.
            ids: The samples.
            targets: Number of targets in the window.
        """
        raise NotImplementedError


class OneSequence(DialogueLayout):
    """One sequence, for a decoder or a prefix-LM, whose prefix is all that comes before the first response."""

    def lengths(self, sizes: Ints, given: Ints) -> Ints:
        """See the base class: the last token is a target only."""
        return (sizes - 1)[:, None]

    def batch(
        self, rows: Sequence[tuple[Ints, Flags]], budget: TokenBudget, start: int, filler: int, ids: Ints, targets: int
    ) -> PrefixBatch:
        """See the base class."""
        tokens, documents = _padded([ids[:-1] for ids, _ in rows], budget, filler)
        wanted, _ = _padded([np.where(flags, ids, IGNORED)[1:] for ids, flags in rows], budget, IGNORED)
        given = torch.tensor([int(np.argmax(flags)) if flags.any() else 0 for _, flags in rows])
        return PrefixBatch(
            tokens=tokens,
            targets=wanted,
            positions=_positions(documents),
            documents=documents,
            prefix=torch.arange(tokens.shape[1]) < given.unsqueeze(1),
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(targets),
        )


class PromptToEncoder(DialogueLayout):
    """For an encoder-decoder: the encoder reads what comes before the first response, the decoder writes the rest."""

    def lengths(self, sizes: Ints, given: Ints) -> Ints:
        """See the base class.

        Raises:
            UserError: A conversation with nothing before its first response.
        """
        if (given == 0).any():
            raise UserError("data.layout: a conversation begins with a response, so the encoder has nothing to read")
        return np.stack([given, sizes - given], axis=1)

    def batch(
        self, rows: Sequence[tuple[Ints, Flags]], budget: TokenBudget, start: int, filler: int, ids: Ints, targets: int
    ) -> PairBatch:
        """See the base class."""
        given = [int(np.argmax(flags)) if flags.any() else 0 for _, flags in rows]
        outputs = [ids[n:] for n, (ids, _) in zip(given, rows, strict=True)]
        inputs = [np.concatenate([[start], output[:-1]])[: len(output)].astype(np.int64) for output in outputs]
        source, read = _padded([ids[:n] for n, (ids, _) in zip(given, rows, strict=True)], budget, filler)
        tokens, documents = _padded(inputs, budget, filler)
        wanted = [np.where(flags, ids, IGNORED)[n:] for n, (ids, flags) in zip(given, rows, strict=True)]
        return PairBatch(
            tokens=tokens,
            targets=_padded(wanted, budget, IGNORED)[0],
            positions=_positions(documents),
            documents=documents,
            source=source,
            source_documents=read,
            ids=torch.from_numpy(ids),
            window_tokens=torch.tensor(targets),
        )


def _padded(rows: Sequence[Ints], budget: TokenBudget, filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows side by side, and their documents: 0, and -1 for padding."""
    width = int(budget.padded(np.array([max(1, max(map(len, rows)))]))[0])
    result, documents = np.full((len(rows), width), filler, np.int64), np.full((len(rows), width), PADDING, np.int64)
    for place, row in enumerate(rows):
        result[place, : len(row)], documents[place, : len(row)] = row, 0
    return torch.from_numpy(result), torch.from_numpy(documents)


def _positions(documents: torch.Tensor) -> torch.Tensor:
    return torch.arange(documents.shape[1]).expand(documents.shape).masked_fill(documents < 0, 0)
