"""Text that has a given structure: a regular expression or a JSON schema says which tokens may come."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_transformer.errors import EnvironmentFault, UserError
from lit_transformer.generation.samplers import History, LogitsProcessor

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Structured(LogitsProcessor):
    """The text matches a regular expression, which the library ``outlines-core`` (extra ``structured``) compiles into
    states and the tokens that each of them allows (Willard & Louf, 2023, arXiv:2307.09702).

    Text whose tokens run out before it ends is the beginning of a match. Tokens that are only parts of characters are
    never allowed.

    Args:
        pattern: The regular expression that the whole text matches; without look-around.
        decode: Token ids to text.
        size: Number of tokens.
        eos_id: The token that ends a text.
        special: Other tokens that are not text.

    Raises:
        UserError: The expression is none, or no text of these tokens matches.
        EnvironmentFault: The library is not installed.
    """  # fmt: skip

    def __init__(
        self,
        pattern: str,
        decode: Callable[[Sequence[int]], str],
        size: int,
        eos_id: int,
        special: Sequence[int] = (),
    ) -> None:
        try:
            from outlines_core import Index, Vocabulary
        except ImportError as error:
            raise EnvironmentFault(
                "structured output needs outlines-core: pip install lit-transformer[structured]"
            ) from error
        self.pattern = pattern
        self._eos_id = eos_id
        spelled: dict[str | bytes, list[int]] = {}
        for token in range(size):
            # Behind another token, as some decoders write a token differently at the start of a text.
            text = decode([token, token])[len(decode([token])) :]
            if text and UNFINISHED not in text and token != eos_id and token not in special:
                spelled.setdefault(text, []).append(token)
        try:
            self._index: Any = Index(pattern, Vocabulary(eos_id, spelled))
        except Exception as error:  # the library's own errors have no common class
            raise UserError(f"pattern: {' '.join(str(error).split())[:200]}") from error
        self._states: list[int | None] = []
        self._allowed: dict[int | None, Tensor] = {}

    @classmethod
    def json(
        cls,
        schema: str | dict[str, Any],
        decode: Callable[[Sequence[int]], str],
        size: int,
        eos_id: int,
        special: Sequence[int] = (),
    ) -> "Structured":
        """Text that is JSON of a schema.

        Args:
            schema: JSON schema, as text or as it is read from it.
            decode: Token ids to text.
            size: Number of tokens.
            eos_id: The token that ends a text.
            special: Other tokens that are not text.
        """
        try:
            from outlines_core import json_schema
        except ImportError as error:
            raise EnvironmentFault(
                "structured output needs outlines-core: pip install lit-transformer[structured]"
            ) from error
        text = schema if isinstance(schema, str) else json.dumps(schema)
        try:
            pattern: str = json_schema.build_regex_from_schema(text)
        except Exception as error:
            raise UserError(f"schema: {' '.join(str(error).split())[:200]}") from error
        return cls(pattern, decode, size, eos_id, special)

    def begin(self) -> "Structured":
        """A copy at the start of the expression."""
        fresh = copy.copy(self)
        fresh._states = []
        return fresh

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if not self._states:
            self._states = [self._index.get_initial_state()] * len(logits)
        else:
            said = history.tokens[:, -1].tolist()
            self._states = [
                None if state is None or token == self._eos_id else self._index.get_next_state(state, token)
                for state, token in zip(self._states, said, strict=True)
            ]
        allowed = torch.stack([self._mask(state, logits) for state in self._states])
        return logits.masked_fill_(~allowed, -torch.inf)

    def _mask(self, state: int | None, logits: Tensor) -> Tensor:
        """(V,), True for tokens that may come; behind the end only the end."""
        if state not in self._allowed:
            tokens = [self._eos_id] if state is None else self._index.get_allowed_tokens(state)
            mask = torch.zeros(logits.shape[-1], dtype=torch.bool)
            mask[tokens or [self._eos_id]] = True
            self._allowed[state] = mask
        return self._allowed[state].to(logits.device)
