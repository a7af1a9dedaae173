"""Ruling out pieces of text, whatever tokens they would be written with."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.samplers import History, LogitsProcessor


class BannedText(LogitsProcessor):
    """Given strings are never completed: a token is ruled out where it would write the rest of one.

    ``BannedWords`` bans sequences of tokens, which a text can be written around; this one bans the text. Only a string
    whose last character takes several byte-level tokens can slip by.

    Args:
        strings: None of them empty.
        decode: Token ids to text.
        size: Number of tokens.
    """

    def __init__(self, strings: Sequence[str], decode: Callable[[Sequence[int]], str], size: int) -> None:
        if "" in strings:
            raise UserError("ban: a string is empty")
        self.strings = list(strings)
        self._decode = decode
        # Behind another token, as some decoders write a token differently at the start of a text.
        texts = [decode([token, token])[len(decode([token])) :] for token in range(size)]
        self._tail = max(map(len, self.strings), default=0) + 8
        self._rest = [
            [torch.tensor([token for token, text in enumerate(texts) if _completes(text, string, begun)])
             for begun in range(len(string))]
            for string in self.strings
        ]  # fmt: skip

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        first = max(0, history.tokens.shape[1] - self._tail)
        for row, (tokens, start) in enumerate(zip(history.tokens[:, first:].tolist(), history.starts, strict=True)):
            text = self._decode(tokens[max(0, start - first) :])
            for string, rest in zip(self.strings, self._rest, strict=True):
                for begun, banned in enumerate(rest):
                    if len(banned) and text.endswith(string[:begun]):
                        logits[row, banned.to(logits.device)] = -torch.inf
        return logits


def _completes(text: str, string: str, begun: int) -> bool:
    """Whether a token's text writes the rest of a string of which ``begun`` characters are there."""
    return text.startswith(string[begun:]) if begun else string in text
