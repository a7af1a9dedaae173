"""Decoding from text to text."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from lit_transformer.errors import UserError
from lit_transformer.generation.decoding import Completion, decode, generate
from lit_transformer.generation.samplers import sampler_of
from lit_transformer.generation.streaming import StopStrings, TextStream
from lit_transformer.networks.base import Network
from lit_transformer.vocabulary import Vocabulary


class Tokenizer(Protocol):
    """What decoding needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        ...

    def unknown(self, text: str) -> str | None:
        """A character that cannot be represented; None if there is none."""
        ...


OnText = Callable[[Completion, str], None]
"""Called with a completion and the text that was added to it, as soon as it is certain."""


class Prompting:
    """How a text becomes what decoding starts from; this base: the new text continues it.

    Args:
        tokenizer: The network's.
        vocabulary: Its special ids.
    """

    continues = True
    """Whether the new text continues the prompt."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary

    def __call__(self, prompt: str) -> list[int]:
        """Token ids to start from.

        Raises:
            UserError: The text cannot be encoded.
        """
        return encode_prompt(self.tokenizer, self.vocabulary, prompt)


class SourcePrompting(Prompting):
    """The prompt is a whole text to be answered (translated, repaired), and ends like one.

    Args:
        tokenizer: That of the sources.
        end: The token that ends one.
    """

    continues = False

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        self.tokenizer = tokenizer
        self.end = end

    def __call__(self, prompt: str) -> list[int]:
        """See the base class."""
        return [*encode_known(self.tokenizer, prompt), self.end]


def encode_prompt(tokenizer: Tokenizer, vocabulary: Vocabulary, prompt: str) -> list[int]:
    """Token ids to start from, behind the token that begins a sequence where there is one.

    An empty prompt starts a document: behind the end of another where nothing marks a beginning, else on a new line.

    Raises:
        UserError: Characters that the tokenizer does not know, or nothing to start from.
    """
    start = [] if vocabulary.bos_id is None else [vocabulary.bos_id]
    if tokens := start + encode_known(tokenizer, prompt):
        return tokens
    if vocabulary.eos_id is not None:
        return [vocabulary.eos_id]
    if tokenizer.unknown("\n") is None and (tokens := tokenizer.encode("\n")):
        return tokens
    raise UserError("the prompt is empty, and the tokenizer has no start or end token to begin with: give a prompt")


def encode_known(tokenizer: Tokenizer, text: str, what: str = "the prompt") -> list[int]:
    """Token ids of a text whose characters the tokenizer knows; the error names those that it does not."""
    unknown = sorted({character for character in text if tokenizer.unknown(character) is not None})
    if unknown:
        signs = ", ".join(map(repr, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        raise UserError(f"{what} has characters that the tokenizer does not know: {signs}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a pair, as JSON can write it
        raise UserError(f"{what} is not UTF-8 text (character {error.start})") from None
    return tokenizer.encode(text)


def text_behind(tokenizer: Tokenizer, start: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of tokens behind others, as some decoders write a token differently at the start of a text."""
    before = list(start)[-TextStream.anchor :]
    return tokenizer.decode([*before, *tokens])[len(tokenizer.decode(before)) :]


def complete(
    network: Network,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    stop: Sequence[str] = (),
    on_text: OnText | None = None,
    prompting: Prompting | None = None,
    **options: Any,
) -> list[Completion]:
    """Completes texts: ``generate`` with a tokenizer around it.

    Args:
        network: One that writes text.
        tokenizer: The one that it was trained with.
        prompts: Texts, which may be empty.
        stop: Strings that end a completion, whatever tokens they come in; its text ends before them.
        on_text: Is called with each piece of text as soon as it is certain.
        prompting: How prompts are encoded; left out: the new text continues them.
        options: ``generate``'s: sampler, max_new_tokens, stop_ids, samples, seed, context, log_probabilities.

    Returns:
        ``samples`` completions for each prompt, in order, with their ``text``.

    Raises:
        UserError: A prompt that cannot be encoded or is longer than the context.
    """
    completions: list[Completion] = []
    prompting = prompting or Prompting(tokenizer, network.vocabulary)
    if not stop and on_text is None:
        rows = [prompting(prompt) for prompt in prompts]
        completions = generate(network, rows, **options)
        for completion in completions:
            start = rows[completion.prompt] if prompts[completion.prompt] and prompting.continues else []
            completion.text = text_behind(tokenizer, start, completion.tokens)
        return completions
    options = {**options, "stop": stop, "prompting": prompting}
    for completion, piece in stream(network, tokenizer, prompts, completions=completions, **options):
        if on_text is not None:
            on_text(completion, piece)
    return completions


def stream(
    network: Network,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    completions: list[Completion],
    stop: Sequence[str] = (),
    prompting: Prompting | None = None,
    **options: Any,
) -> Iterator[tuple[Completion, str]]:
    """Completes texts as an iterator over pieces: yields a completion and the text that was added to it.

    Args:
        network: One that writes text.
        tokenizer: The one that it was trained with.
        prompts: Texts, which may be empty.
        completions: Is filled with the completions at the start.
        stop: Strings that end a completion.
        prompting: How prompts are encoded; left out: the new text continues them.
        options: ``generate``'s.
    """
    prompting = prompting or Prompting(tokenizer, network.vocabulary)
    rows = [prompting(prompt) for prompt in prompts]
    StopStrings(stop)  # refused before anything is decoded, not at the first token
    watches: dict[tuple[int, int], Watch] = {}

    def watch_of(completion: Completion) -> Watch:
        key = completion.prompt, completion.sample
        if key not in watches:
            start = rows[completion.prompt] if prompts[completion.prompt] and prompting.continues else []
            watches[key] = Watch(TextStream(tokenizer.decode, start), StopStrings(stop))
        return watches[key]

    for grown in decode(network, rows, completions=completions, **options):
        for completion in grown:
            if piece := watch_of(completion).grow(completion):
                yield completion, piece
    for completion in completions:
        if completion.reason != "stop string" and (piece := watch_of(completion).finish(completion)):
            yield completion, piece


class Watch:
    """Follows one completion as text.

    Args:
        stream: Makes text of its tokens.
        stops: What ends it.
    """

    def __init__(self, stream: TextStream, stops: StopStrings) -> None:
        self.stream = stream
        self.stops = stops

    def grow(self, completion: Completion) -> str:
        """The text that is certain after one more token."""
        text, stopped = self.stops.push(self.stream.push(completion.tokens[-1]))
        completion.text += text
        if stopped:
            completion.reason = "stop string"
        return text

    def finish(self, completion: Completion) -> str:
        """What was held back, after the last token."""
        text, stopped = self.stops.push(self.stream.flush())
        text = text if stopped else text + self.stops.flush()
        completion.text += text
        return text


def sample_text(
    network: Network,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
) -> str:
    """A prompt and one continuation of it, for logs and notebooks.

    Args:
        network: A decoder-only network; its training mode is left as it is.
        tokenizer: The one that it was trained with.
        prompt: Text; empty starts a document.
        max_new_tokens: Most tokens to add.
        temperature: Divides the scores; 0 takes the most probable token.
        top_k: Keeps this many tokens.
        seed: The same seed gives the same text; left out: drawn from PyTorch's global generator.
    """
    sampler = sampler_of(temperature, top_k)
    (completion,) = complete(network, tokenizer, [prompt], sampler=sampler, max_new_tokens=max_new_tokens, seed=seed)
    return prompt + completion.text
