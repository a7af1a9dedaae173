"""What a client wants of the engine, and what it is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_transformer.generation.decoding import Completion, uniform
from lit_transformer.generation.model import Model
from lit_transformer.generation.samplers import Greedy, History, Sampler
from lit_transformer.generation.streaming import StopStrings, TextStream
from lit_transformer.generation.text import Watch


@dataclass(frozen=True)
class Want:
    """How texts are to be written.

    Args:
        max_new_tokens: Most tokens to add.
        sampler: How the next token is found.
        stop: Strings that end a text.
        samples: Texts per prompt.
        seed: The same seed gives the same text; prompt i is decoded with ``seed + i``, as in ``generate``.
        log_probabilities: How many of the most probable tokens are told beside the one written; None: nothing is.
    """

    max_new_tokens: int
    sampler: Sampler = Sampler()  # noqa: RUF009 it holds nothing
    stop: Sequence[str] = ()
    samples: int = 1
    seed: int = 0
    log_probabilities: int | None = None


@dataclass(frozen=True)
class Likelihood:
    """A token that was written and what else could have been.

    Args:
        token: The token as text.
        log_probability: Under the network itself.
        others: The most probable tokens as text, with theirs.
    """

    token: str
    log_probability: float
    others: dict[str, float]


@dataclass(frozen=True)
class Event:
    """What happened to one text.

    Args:
        index: Number of the text: those of a prompt one after the other.
        text: What is certain of it by now and was not told before.
        likelihood: Of the token that was written, where asked for.
        reason: Why it ended, at its end: "stop", "length", or "error".
        tokens: Tokens written, at its end.
        error: What went wrong, at its end.
        status: What HTTP calls it.
    """

    index: int
    text: str = ""
    likelihood: Likelihood | None = None
    reason: str | None = None
    tokens: int = 0
    error: str | None = None
    status: int = 500


@dataclass(eq=False)
class Row:
    """One text being written.

    Args:
        job: The request that it belongs to.
        index: Its number there.
        prompt: Token ids.
        sampler: Its own.
        watch: Makes text of its tokens.
        tokens: Prompt (as the network sees it before the text) and text.
        opening: How many of them are not text.
        draws: (N,) what it is drawn by.
        completion: What was written.
    """

    job: "Job"
    index: int
    prompt: list[int]
    sampler: Sampler
    watch: Watch
    tokens: Tensor
    opening: int
    draws: Tensor
    completion: Completion

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is written, whatever was written before."""
        return isinstance(self.sampler.choice, Greedy) and not self.sampler.processors

    def choose(self, logits: Tensor) -> int:
        """The next token, by its own sampler; logits (V,) are left as they are."""
        count = self.opening + len(self.completion.tokens)
        history = History(self.tokens[:, :count], [0], self.opening)
        step = len(self.completion.tokens)
        return int(self.sampler(logits.clone().unsqueeze(0), history, self.draws[step : step + 1]))

    def take(self, token: int) -> str:
        """Writes a token; returns the text that is certain by now."""
        self.tokens[0, self.opening + len(self.completion.tokens)] = token
        self.completion.tokens.append(token)
        return self.watch.grow(self.completion)


@dataclass(eq=False)
class Job:
    """A request: prompts, and how many texts of each.

    Args:
        rows: The texts to write.
        deliver: Called with each event, in the engine's thread; it must not wait.
        deadline: When it is given up, by ``time.monotonic``.
        want: How texts are to be written.
        cancelled: Whether nobody wants it any more.
    """

    deliver: Callable[[Event], None]
    deadline: float
    want: Want
    rows: list[Row] = field(default_factory=list)
    cancelled: bool = False

    @classmethod
    def of(
        cls, model: Model, prompts: Sequence[Sequence[int]], texts: Sequence[str], want: Want,
        deliver: Callable[[Event], None], deadline: float,
    ) -> "Job":  # fmt: skip
        """A job for prompts in token ids.

        Args:
            model: The model.
            prompts: Token ids.
            texts: The prompts as they were given; that of an empty one is written as if nothing stood before it.
            want: How texts are to be written.
            deliver: Called with each event.
            deadline: When it is given up.
        """
        job = cls(deliver, deadline, want)
        device = next(model.network.parameters()).device
        for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            opening = model.network.opening(prompt)
            shown = prompt if text and model.prompting.continues else []
            for j in range(want.samples):
                completion = Completion(i, j)
                watch = Watch(TextStream(model.tokenizer.decode, shown), StopStrings(want.stop))
                tokens = torch.zeros(1, len(opening) + want.max_new_tokens, dtype=torch.long, device=device)
                tokens[0, : len(opening)] = torch.tensor(opening, device=device)
                draws = uniform([completion], want.max_new_tokens, want.seed, want.sampler, device)[0]
                job.rows.append(
                    Row(job, i * want.samples + j, list(prompt), want.sampler.begin(), watch, tokens, len(opening),
                        draws, completion)
                )  # fmt: skip
        return job
