"""Translating texts with a trained network, batched by length."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from lit_transformer.errors import UserError
from lit_transformer.generation.beam import beam_search
from lit_transformer.generation.decoding import Completion
from lit_transformer.generation.text import encode_known
from lit_transformer.networks.base import Network


class TextTokenizer(Protocol):
    """What translating needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        ...

    def unknown(self, text: str) -> str | None:
        """A character that cannot be represented; None if there is none."""
        ...


class Translator:
    """Texts to their most probable translations: by an encoder-decoder, a prefix-LM or a decoder, as it was trained.

    Args:
        network: The network.
        tokenizer: That of the translations.
        source_tokenizer: That of the texts to translate.
        end: The token that ends a source.
    """

    bucket = 8
    """Sources are decoded beside ones of the same length up to this many tokens."""

    def __init__(self, network: Network, tokenizer: TextTokenizer, source_tokenizer: TextTokenizer, end: int) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.source_tokenizer = source_tokenizer
        self.end = end

    @property
    def longest(self) -> int | None:
        """Most tokens of a source, the one that ends it included; None: any number."""
        window = self.network.dims.max_len
        # In one sequence a translation needs at least one place more.
        return window if window is None or self.network.reads_apart else window - 1

    def prompt(self, text: str, cut: bool = False) -> tuple[list[int], int]:
        """What decoding starts from, and how many tokens were cut off its text.

        Args:
            text: A text to translate.
            cut: Cuts a text that is too long.

        Raises:
            UserError: The text is too long, or has characters that the tokenizer does not know.
        """
        tokens = encode_known(self.source_tokenizer, text, "the text")
        over = 0 if self.longest is None else max(0, len(tokens) + 1 - self.longest)
        if over and not cut:
            raise UserError(f"the text has {len(tokens)} tokens and the model reads {len(tokens) - over}")
        return [*tokens[: len(tokens) - over], self.end], over

    def __call__(
        self, prompts: Sequence[Sequence[int]], *, batch_size: int = 32, ratio: float = 1.5, extra: int = 10,
        **options: Any,
    ) -> Iterator[tuple[int, Completion]]:  # fmt: skip
        """The translation of each prompt with its number, as they are done: the shortest first.

        A translation is the same whatever stands beside it: batches are of prompts that may become equally long.

        Args:
            prompts: From ``prompt``.
            batch_size: Most texts decoded together.
            ratio: Most new tokens as a multiple of the prompt's.
            extra: New tokens allowed beyond that.
            options: ``beam_search``'s: beams, length_penalty, patience, processors; also max_new_tokens, which holds
                whatever the ratio says.
        """
        most = options.pop("max_new_tokens", None)
        rooms = [self._room(len(prompt), ratio, extra, most) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda i: (rooms[i], len(prompts[i])))
        start = 0
        while start < len(order):
            room = rooms[order[start]]
            end = start + 1
            while end < len(order) and end - start < batch_size and rooms[order[end]] == room:
                end += 1
            batch = order[start:end]
            done = beam_search(self.network, [prompts[i] for i in batch], max_new_tokens=room, **options)
            for i, completion in zip(batch, done, strict=True):
                completion.text = self.tokenizer.decode(completion.tokens, skip_special_tokens=True)
                yield i, completion
            start = end

    def _room(self, length: int, ratio: float, extra: int, most: int | None) -> int:
        """Most new tokens behind a prompt: a function of its length alone, the same for neighbours."""
        rounded = -(-length // self.bucket) * self.bucket
        room = max(1, int(rounded * ratio) + extra) if most is None else most
        window = self.network.dims.max_len
        if window is None:
            return room
        return min(room, window if self.network.reads_apart else window - length + 1)
