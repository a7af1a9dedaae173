"""From next-token scores to the next token: a chain of processors, then a choice.

Each processor is one idea of the literature in one class; a sampler is a list of them and a choice at the end, so that
any combination is a value and a new idea is one more class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_transformer.errors import UserError


@dataclass
class History:
    """What has been said so far, for processors that look back.

    Args:
        tokens: (R, N) prompt and new tokens, prompts padded on the left.
        starts: First place that is not padding, per row.
        prompt_end: Where the prompts end and the new tokens start.
    """

    tokens: Tensor
    starts: Sequence[int]
    prompt_end: int

    @property
    def new_tokens(self) -> int:
        """Number of tokens generated so far."""
        return self.tokens.shape[1] - self.prompt_end


class LogitsProcessor:
    """Base of the processors: changes scores (R, V) in float32, in place if it likes; -inf rules a token out."""

    def begin(self) -> "LogitsProcessor":
        """The processor to use for one generation: itself, or a fresh copy where it remembers between tokens."""
        return self

    def __call__(self, logits: Float[Tensor, "R V"], history: History) -> Float[Tensor, "R V"]:
        """The changed scores."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items() if k[0] != '_')})"


class Temperature(LogitsProcessor):
    """Scores divided by a number: below 1 sharper, above 1 flatter.

    Args:
        temperature: The divisor; 0 is no divisor but the ``Greedy`` choice.
    """

    def __init__(self, temperature: float) -> None:
        if not temperature > 0:
            raise UserError(f"temperature: is {temperature}, must be above 0 (0 is greedy decoding)")
        self.temperature = temperature

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if self.temperature < 1e-3:  # or scores are no numbers any more
            logits = logits.sub_(logits.amax(-1, keepdim=True))
        return logits.div_(max(self.temperature, 1e-30))


class TopK(LogitsProcessor):
    """Only the k most probable tokens (Fan et al., 2018, arXiv:1805.04833); ties with the last one stay.

    Args:
        k: How many.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise UserError(f"top_k: is {k}, must be at least 1")
        self.k = k

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if self.k >= logits.shape[-1]:
            return logits
        last = logits.topk(self.k, dim=-1).values[:, -1:]
        return logits.masked_fill_(logits < last, -torch.inf)


class TopP(LogitsProcessor):
    """The fewest most probable tokens that hold a share p together (nucleus: Holtzman et al., 2020, arXiv:1904.09751).

    The token that reaches p is kept, and so are tokens exactly as probable as it.

    Args:
        p: The share, in (0, 1].
    """

    candidates = 256
    """The tokens that are looked at first: sorting a vocabulary of 50,000 takes longer than a small network."""

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UserError(f"top_p: is {p}, must be above 0 and at most 1")
        self.p = p

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if self.p >= 1:
            return logits
        probabilities = logits.softmax(-1)
        count = min(self.candidates, logits.shape[-1])
        ranked = probabilities.topk(count, dim=-1).values
        mass = ranked.cumsum(-1)
        if count < logits.shape[-1] and bool((mass[:, -1] < self.p).any()):
            ranked = probabilities.sort(dim=-1, descending=True).values
            mass = ranked.cumsum(-1)
        return logits.masked_fill_(probabilities < last_kept(ranked, mass, self.p), -torch.inf)


def last_kept(ranked: Tensor, mass: Tensor, share: float) -> Tensor:
    """(R, 1): the entry of ``ranked`` at which the cumulated ``mass`` first reaches ``share``."""
    last = (mass < share).sum(-1, keepdim=True).clamp_(max=ranked.shape[-1] - 1)
    return ranked.gather(-1, last)


class MinP(LogitsProcessor):
    """Tokens at least p times as probable as the most probable one (Nguyen et al., 2024, arXiv:2407.01082).

    Args:
        p: The share of the largest probability, in (0, 1].
    """

    def __init__(self, p: float) -> None:
        if not 0 < p <= 1:
            raise UserError(f"min_p: is {p}, must be above 0 and at most 1")
        self.floor = float(torch.tensor(p, dtype=torch.float64).log())
        self.p = p

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        return logits.masked_fill_(logits < logits.amax(-1, keepdim=True) + self.floor, -torch.inf)


class Choice:
    """Base of the choices: processed scores (R, V) to tokens (R,)."""

    def __call__(self, logits: Float[Tensor, "R V"], draws: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
        """The tokens; ``draws`` are uniform in [0, 1), one a row, float64."""
        raise NotImplementedError

    def distribution(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        """The probability of each token to be chosen."""
        raise NotImplementedError


class Greedy(Choice):
    """The most probable token; of equals the one with the lowest id."""

    def __call__(self, logits: Tensor, draws: Tensor) -> Tensor:
        """See the base class."""
        return logits.argmax(-1)

    def distribution(self, logits: Tensor) -> Tensor:
        """All on one token."""
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)


class Multinomial(Choice):
    """A token drawn with its probability, by inverting the distribution function at the row's own draw.

    So a row's tokens depend on its scores and its seed alone, not on what else is in the batch.
    """

    def __call__(self, logits: Tensor, draws: Tensor) -> Tensor:
        """See the base class."""
        probabilities = logits.softmax(-1)
        if probabilities.device.type == "mps":  # has no float64
            probabilities = probabilities.cpu()
        mass = probabilities.cumsum(-1, dtype=torch.float64)
        draws = draws.to(mass.device).unsqueeze(-1) * mass[:, -1:]
        return torch.searchsorted(mass, draws, right=True).squeeze(-1).to(logits.device)

    def distribution(self, logits: Tensor) -> Tensor:
        """The softmax."""
        return logits.softmax(-1)


@dataclass(frozen=True)
class Sampler:
    """A chain of processors and a choice.

    Args:
        processors: Applied in order.
        choice: How the token is picked in the end.
    """

    processors: Sequence[LogitsProcessor] = ()
    choice: Choice = Greedy()  # noqa: RUF009 it holds nothing

    def begin(self) -> "Sampler":
        """The sampler to use for one generation."""
        return Sampler([processor.begin() for processor in self.processors], self.choice)

    def process(self, logits: Float[Tensor, "R V"], history: History) -> Float[Tensor, "R V"]:
        """The scores after the whole chain."""
        for processor in self.processors:
            logits = processor(logits, history)
        return logits

    def __call__(self, logits: Float[Tensor, "R V"], history: History, draws: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
        """The next tokens."""
        return self.choice(self.process(logits, history), draws)


def sampler_of(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    processors: Sequence[LogitsProcessor] = (),
    truncations: Sequence[LogitsProcessor] = (),
) -> Sampler:
    """The usual chain: penalties, temperature, top-k, top-p, min-p, others, then a draw; temperature 0 is greedy.

    Args:
        temperature: Divides the scores; 0 takes the most probable token.
        top_k: Keeps this many tokens.
        top_p: Keeps the most probable tokens that hold this share together.
        min_p: Keeps tokens at least this share as probable as the most probable one.
        processors: What acts on the scores before all of these: penalties, bans.
        truncations: What cuts the distribution after all of these: typical, epsilon, eta, mirostat.

    Raises:
        UserError: A value out of its range.
    """
    if temperature == 0:
        return Sampler(list(processors), Greedy())
    chain = [*processors]
    if temperature != 1:
        chain.append(Temperature(temperature))
    if top_k is not None:
        chain.append(TopK(top_k))
    if top_p is not None:
        chain.append(TopP(top_p))
    if min_p is not None:
        chain.append(MinP(min_p))
    return Sampler([*chain, *truncations], Multinomial())
