"""A trained network and its tokenizer, with the verbs of the command line as methods."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

from lit_transformer.generation.beam import beam_search
from lit_transformer.generation.decoding import Completion
from lit_transformer.generation.samplers import sampler_of
from lit_transformer.generation.scoring import Score, score
from lit_transformer.generation.text import Tokenizer, complete, encode_prompt, stream, text_behind
from lit_transformer.networks.base import Network

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "processors", "truncations")


class Model:
    """What ``lit_transformer.load`` gives: text in, text out.

    Options of all methods are those of ``sampler_of`` (temperature, top_k, top_p, min_p, ...) or a ``sampler`` of your
    own, and those of ``generate`` (max_new_tokens, stop_ids, seed, context) with ``stop``, a list of strings.

    Args:
        network: A decoder-only network.
        tokenizer: The one that it was trained with.
    """

    def __init__(self, network: Network, tokenizer: Tokenizer) -> None:
        self.network = network
        self.tokenizer = tokenizer

    @overload
    def generate(self, prompt: str, **options: Any) -> str: ...
    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[str]: ...
    def generate(self, prompt: str | Sequence[str], **options: Any) -> str | list[str]:
        """What follows a prompt, or each of several that are decoded together.

        Args:
            prompt: A text or several; an empty one starts a document.
            options: See the class.

        Raises:
            UserError: A prompt that cannot be encoded or is longer than the context, or an option out of range.
        """
        texts = [each.text for each in self.complete([prompt] if isinstance(prompt, str) else prompt, **options)]
        return texts[0] if isinstance(prompt, str) else texts

    def complete(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        """Completions with all that is known of them; also takes ``samples``, ``log_probabilities`` and ``on_text``.

        Args:
            prompts: Texts.
            options: See the class.
        """
        return complete(self.network, self.tokenizer, prompts, **_with_sampler(options))

    def search(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        """The most probable completions of each prompt, best first, by beam search.

        Args:
            prompts: Texts.
            options: ``beam_search``'s: beams, samples, max_new_tokens, stop_ids, length_penalty, patience, processors,
                context.
        """
        rows = [encode_prompt(self.tokenizer, self.network.vocabulary, prompt) for prompt in prompts]
        completions = beam_search(self.network, rows, **options)
        for completion in completions:
            completion.text = text_behind(self.tokenizer, rows[completion.prompt], completion.tokens)
        return completions

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """What follows a prompt, piece by piece.

        Args:
            prompt: A text.
            options: See the class.
        """
        options = _with_sampler(options)
        for _, piece in stream(self.network, self.tokenizer, [prompt], completions=[], **options):
            yield piece

    def score(self, text: str, context: int | None = None) -> Score:
        """How probable a text is: log-likelihood, perplexity, bits per byte.

        Args:
            text: The text.
            context: Most tokens to look at; left out: the length that the network was built for.
        """
        return score(self.network, self.tokenizer, text, context)


def _with_sampler(options: dict[str, Any]) -> dict[str, Any]:
    chosen = {name: options.pop(name) for name in SAMPLING if name in options}
    if chosen and "sampler" in options:
        raise TypeError(f"either sampler or {', '.join(chosen)}")
    return {"sampler": sampler_of(**chosen), **options}
