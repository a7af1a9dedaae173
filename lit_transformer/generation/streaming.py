"""Tokens to text as they come: whole characters only, and an end at stop strings."""

from collections.abc import Callable, Sequence

from lit_transformer.errors import UserError

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for the bytes of a character that is not complete."""


class TextStream:
    """Turns tokens into pieces of text whose sum is the text of all tokens.

    A byte-level token may end in the middle of a character: that character is held back until it is complete.

    Args:
        decode: Token ids to text.
        start: Tokens before the first one (the end of the prompt), whose text is not repeated.
    """

    anchor = 8
    """Tokens kept as context, because some decoders write a token differently at the start of a text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], start: Sequence[int] = ()) -> None:
        self._decode = decode
        self._tokens = list(start)[-self.anchor :]
        self._shown = len(decode(self._tokens)) if self._tokens else 0

    def push(self, token: int) -> str:
        """The text that one more token completes; may be empty."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        # Lossy decoding writes one sign for an unfinished character, however many of its bytes are there.
        piece = text[self._shown : len(text) - text.endswith(UNFINISHED)]
        self._shown += len(piece)
        if self._shown == len(text) and len(self._tokens) >= 4 * self.anchor:
            self._tokens = self._tokens[-self.anchor :]
            self._shown = len(self._decode(self._tokens))
        return piece

    def flush(self) -> str:
        """What is still held back, once no token follows."""
        text = self._decode(self._tokens)[self._shown :] if self._tokens else ""
        self._shown += len(text)
        return text


class StopStrings:
    """Cuts a stream of text before the first of some strings, which may come in several pieces.

    Args:
        strings: None of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if "" in strings:
            raise UserError("stop: a stop string is empty")
        self.strings = strings
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that can be shown by now, and whether a stop string was found behind it."""
        self._held += piece
        found = [at for at in (self._held.find(string) for string in self.strings) if at >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max((self._begun(string) for string in self.strings), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def flush(self) -> str:
        """What is held back because a stop string could have begun there."""
        shown, self._held = self._held, ""
        return shown

    def _begun(self, string: str) -> int:
        """Length of the longest start of ``string`` that the held text ends with."""
        return next((n for n in range(len(string) - 1, 0, -1) if self._held.endswith(string[:n])), 0)
