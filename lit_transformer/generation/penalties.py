"""Processors that look back at what was said, and ones that rule tokens out."""

import copy
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.samplers import History, LogitsProcessor


class Counting(LogitsProcessor):
    """Base of the processors that count tokens; counts are kept up to date, not taken anew for each token."""

    with_prompt = False
    """Whether the tokens of the prompt count."""

    _counts: Tensor | None = None

    def begin(self) -> "Counting":
        """A copy with nothing counted."""
        fresh = copy.copy(self)
        fresh._counts = None
        return fresh

    def counts(self, logits: Tensor, history: History) -> Tensor:
        """(R, V): how often each token has been said."""
        if self._counts is None:
            self._counts = torch.zeros_like(logits)
            first = 0 if self.with_prompt else history.prompt_end
            said = history.tokens[:, first:]
            place = torch.arange(first, first + said.shape[1], device=said.device)
            real = place >= torch.tensor(history.starts, device=said.device).unsqueeze(1)
        else:
            said = history.tokens[:, -1:]
            real = torch.ones_like(said, dtype=torch.bool)
        return self._counts.scatter_add_(1, said, real.to(logits.dtype))


class RepetitionPenalty(Counting):
    """Tokens of the prompt or the text lose score: positive ones are divided, negative ones multiplied (Keskar et al.,
    2019, arXiv:1909.05858).

    Args:
        penalty: The factor; 1 changes nothing.
    """  # fmt: skip

    with_prompt = True

    def __init__(self, penalty: float) -> None:
        if penalty <= 0:
            raise UserError(f"repetition_penalty: is {penalty}, must be above 0")
        self.penalty = penalty

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        lowered = torch.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return torch.where(self.counts(logits, history) > 0, lowered, logits)


class FrequencyPenalty(Counting):
    """Tokens of the new text lose score for each time that they were said.

    Args:
        penalty: Taken off the score for each time; negative values invite repetition.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        return logits.sub_(self.counts(logits, history), alpha=self.penalty)


class PresencePenalty(Counting):
    """Tokens of the new text lose score once.

    Args:
        penalty: Taken off the score; negative values invite repetition.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        return logits.sub_((self.counts(logits, history) > 0).to(logits.dtype), alpha=self.penalty)


class NoRepeatNGram(LogitsProcessor):
    """No sequence of n tokens occurs twice in prompt and text (Paulus et al., 2018, arXiv:1705.04304).

    Args:
        n: Length of the sequences.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise UserError(f"no_repeat_ngram: is {n}, must be at least 1")
        self.n = n

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        tokens = history.tokens
        if tokens.shape[1] < self.n:
            return logits
        windows = tokens.unfold(1, self.n, 1)
        seen = (windows[..., :-1] == tokens[:, tokens.shape[1] - self.n + 1 :].unsqueeze(1)).all(-1)
        starts = torch.tensor(history.starts, device=tokens.device).unsqueeze(1)
        seen &= torch.arange(windows.shape[1], device=tokens.device) >= starts
        banned = torch.zeros_like(logits).scatter_add_(1, windows[..., -1], seen.to(logits.dtype))
        return logits.masked_fill_(banned > 0, -torch.inf)


class LogitBias(LogitsProcessor):
    """Given tokens gain or lose score.

    Args:
        bias: What is added, by token id; ``-inf`` rules a token out.
    """

    def __init__(self, bias: Mapping[int, float]) -> None:
        self.bias = dict(bias)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if wrong := [token for token in self.bias if not 0 <= token < logits.shape[-1]]:
            raise UserError(f"logit_bias: token {wrong[0]} and the vocabulary ends at {logits.shape[-1] - 1}")
        ids = torch.tensor(list(self.bias), device=logits.device, dtype=torch.long)
        return logits.index_add_(1, ids, logits.new_tensor(list(self.bias.values())).expand(len(logits), -1))


class BannedWords(LogitsProcessor):
    """Given sequences of tokens never occur: the last token of one is ruled out where the others stand before it.

    Args:
        words: Token ids of each word.
    """

    def __init__(self, words: Sequence[Sequence[int]]) -> None:
        if not all(words):
            raise UserError("banned words: one is empty")
        self.words = [list(word) for word in words]

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        tokens = history.tokens
        starts = torch.tensor(history.starts, device=tokens.device)
        for *before, last in self.words:
            first = tokens.shape[1] - len(before)
            if first < 0:
                continue
            matches = (tokens[:, first:] == tokens.new_tensor(before)).all(-1) & (starts <= first)
            logits[:, last].masked_fill_(matches, -torch.inf)
        return logits


class MinNewTokens(LogitsProcessor):
    """Given tokens do not come before the text has a least length.

    Args:
        n: The length in new tokens.
        stop_ids: The tokens, such as the end of a document.
    """

    def __init__(self, n: int, stop_ids: Collection[int]) -> None:
        self.n = n
        self.stop_ids = list(stop_ids)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if history.new_tokens < self.n:
            logits[:, self.stop_ids] = -torch.inf
        return logits
