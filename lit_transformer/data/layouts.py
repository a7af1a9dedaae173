"""How the texts of a row become the sequence that a network reads, and what is cut where it is too long."""

from collections.abc import Sequence

import numpy as np

from lit_transformer.data.token_file import Ints
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.errors import UserError


class Truncation:
    """Base of the ways to shorten texts. Where a row has several, the longest loses first."""

    def shares(self, lengths: Ints, room: int) -> Ints:
        """(N, K) tokens that each of the K texts keeps, together at most ``room``.

        Args:
            lengths: (N, K) tokens of each text.
            room: Most tokens of a row.
        """
        rows, count = np.arange(len(lengths)), lengths.shape[1]
        order = np.argsort(lengths, axis=1, kind="stable")
        kept, left = np.zeros_like(lengths), np.full(len(lengths), room)
        for place in range(count):  # the shortest first: what it does not need is the others'
            field = order[:, place]
            kept[rows, field] = np.minimum(lengths[rows, field], left // (count - place))
            left = left - kept[rows, field]
        return kept

    def cut(self, tokens: Ints, keep: int) -> Ints:
        """``keep`` of the tokens of a text."""
        raise NotImplementedError


class KeepStart(Truncation):
    """Keeps the beginning of each text."""

    def cut(self, tokens: Ints, keep: int) -> Ints:
        """See the base class."""
        return tokens[:keep]


class KeepEnds(Truncation):
    """Keeps the beginning and the end of each text, where reviews tend to say what they mean (Sun et al., 2019,
    arXiv:1905.05583).

    Args:
        start: Share of what is kept that comes from the beginning.
    """

    def __init__(self, start: float = 0.25) -> None:
        if not 0 <= start <= 1:
            raise UserError(f"data.layout.truncation.start: is {start}, must lie between 0 and 1")
        self.start = start

    def cut(self, tokens: Ints, keep: int) -> Ints:
        """See the base class."""
        if len(tokens) <= keep:
            return tokens
        first = round(keep * self.start)
        return np.concatenate([tokens[:first], tokens[len(tokens) - (keep - first) :]])


class Layout:
    """One sequence a row, for an encoder or a decoder: the token for the whole row (cls, or what begins a text), then
    each text and the token that separates texts (sep, or what ends one). A tokenizer that has none of them gives the
    bare text.

    Args:
        truncation: What a row longer than ``data.max_len`` loses. Left out: such a row is an error.
    """

    splits_source = False
    """Whether the texts go to an encoder, beside a decoder that reads its start token."""
    has_types = False
    """Whether tokens say which of the texts they belong to."""

    def __init__(self, truncation: Truncation | None = None) -> None:
        self.truncation = truncation

    def extra(self, tokenizer: Tokenizer, fields: int) -> int:
        """Number of tokens that stand for no text, in a row of this many texts.

        Raises:
            UserError: There is nothing to tell two texts apart.
        """
        if fields > 1 and tokenizer.sep_id is None:
            raise UserError("data.tokenizer.special_tokens: a row of several texts needs '<sep>' or '<eos>' among them")
        return (tokenizer.cls_id is not None) + fields * (tokenizer.sep_id is not None)

    def lengths(self, texts: Ints, tokenizer: Tokenizer, max_len: int) -> Ints:
        """(N,) tokens of each row.

        Args:
            texts: (N, K) tokens of each text.
            tokenizer: Knows the special tokens.
            max_len: Most tokens of a row.
        """
        extra = self.extra(tokenizer, texts.shape[1])
        if self.truncation is not None:
            texts = self.truncation.shares(texts, max_len - extra)
        return np.asarray(texts.sum(axis=1) + extra)

    def row(self, texts: Sequence[Ints], tokenizer: Tokenizer, max_len: int) -> tuple[Ints, Ints]:
        """(L,) token ids of a row, and (L,) which text each belongs to."""
        if self.truncation is not None:
            lengths = np.array([[len(text) for text in texts]])
            keep = self.truncation.shares(lengths, max_len - self.extra(tokenizer, len(texts)))[0]
            texts = [self.truncation.cut(text, int(count)) for text, count in zip(texts, keep, strict=True)]
        parts = [] if tokenizer.cls_id is None else [np.array([tokenizer.cls_id])]
        types = [0] * len(parts)
        for number, text in enumerate(texts):
            end = [] if tokenizer.sep_id is None else [tokenizer.sep_id]
            parts += [text, np.array(end, dtype=np.int64)]
            types += [number] * (len(text) + len(end))
        return np.concatenate(parts).astype(np.int64), np.array(types, dtype=np.int64)


class TypedLayout(Layout):
    """One sequence a row whose tokens say which text they belong to: BERT's segments; the network's embedding must have
    as many ``types``.
    """

    has_types = True


class SourceLayout(Layout):
    """The sequence goes to the encoder; the decoder reads its start token, whose state is what is classified."""

    splits_source = True
