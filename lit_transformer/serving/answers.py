"""From what happens to texts to the JSON that OpenAI's clients read."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from lit_transformer.generation.text import Tokenizer
from lit_transformer.serving.requests import Event, Likelihood, Want


def data(value: Any) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


class Choice:
    """One text, growing.

    Args:
        index: Its number.
        prompt: What it begins with, where it was asked to.
    """

    def __init__(self, index: int, prompt: str) -> None:
        self.index = index
        self.text = prompt
        self.likelihoods: list[Likelihood] = []
        self.offsets: list[int] = []
        self.reason: str | None = None

    def add(self, event: Event) -> None:
        """Takes in what happened."""
        if event.likelihood is not None:
            self.likelihoods.append(event.likelihood)
            self.offsets.append(len(self.text))
        self.text += event.text
        self.reason = event.reason

    def shown(self, text: str, first: int, with_likelihoods: bool) -> dict[str, Any]:
        """As JSON, with the likelihoods from the ``first`` on."""
        likelihoods = self.likelihoods[first:]
        said = None
        if with_likelihoods:
            said = {
                "tokens": [each.token for each in likelihoods],
                "token_logprobs": [each.log_probability for each in likelihoods],
                "top_logprobs": [each.others for each in likelihoods],
                "text_offset": self.offsets[first:],
            }
        return {"index": self.index, "text": text, "logprobs": said, "finish_reason": self.reason}


class Answer:
    """The answer to a request, as far as it is known.

    Args:
        model: Name of the model.
        prompts: The prompts.
        tokenizer: Makes text of those that are token ids.
        want: What was asked for.
        read: Tokens of the prompts.
        echo: Whether texts begin with their prompt.
    """

    def __init__(
        self, model: str, prompts: Sequence[str | list[int]], tokenizer: Tokenizer, want: Want, read: int, echo: bool
    ) -> None:
        self.head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
                     "model": model}  # fmt: skip
        shown = [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in prompts] if echo else []
        self.choices = [Choice(i, shown[i // want.samples] if echo else "") for i in range(len(prompts) * want.samples)]
        self.with_likelihoods = want.log_probabilities is not None
        self.read = read
        self.written = 0
        self._open = len(self.choices)

    @property
    def ended(self) -> bool:
        """Whether all texts have."""
        return self._open == 0

    def opening(self) -> Iterator[dict[str, Any]]:
        """The pieces of a stream before anything is written: prompts to be repeated."""
        for choice in self.choices:
            if choice.text:
                yield {**self.head, "choices": [choice.shown(choice.text, 0, False)]}

    def add(self, event: Event) -> dict[str, Any]:
        """Takes in what happened; returns it as a piece of a stream."""
        choice = self.choices[event.index]
        first = len(choice.likelihoods)
        choice.add(event)
        if event.reason is not None:
            self._open -= 1
            self.written += event.tokens
        piece = choice.shown(event.text, first, self.with_likelihoods and event.likelihood is not None)
        return {**self.head, "choices": [piece]}

    def whole(self) -> dict[str, Any]:
        """All of it."""
        choices = [choice.shown(choice.text, 0, self.with_likelihoods) for choice in self.choices]
        return {**self.head, "choices": choices, "usage": self.usage}

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        return {"prompt_tokens": self.read, "completion_tokens": self.written,
                "total_tokens": self.read + self.written}  # fmt: skip

    def usage_piece(self) -> dict[str, Any]:
        """The last piece of a stream."""
        return {**self.head, "choices": [], "usage": self.usage}
