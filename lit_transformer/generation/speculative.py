"""Speculative decoding: a cheap draft proposes several tokens, the network checks them in one pass.

The text has exactly the distribution that the network and the sampler give it alone (Leviathan et al., 2023,
arXiv:2211.17192; Chen et al., 2023, arXiv:2302.01318); only the time depends on the draft.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.decoding import ANY_TOKEN, Completion, check, stops_of
from lit_transformer.generation.form import worth_forming
from lit_transformer.generation.runner import Runner, evaluating
from lit_transformer.generation.samplers import Choice, History, Sampler
from lit_transformer.networks.base import Network
from lit_transformer.networks.initialisation import generator_for


@dataclass
class Proposal:
    """Tokens that may come next.

    Args:
        tokens: The tokens.
        distributions: What each was drawn from, (V,) float32; None where it is not drawn but certain.
    """

    tokens: list[int]
    distributions: list[Tensor | None]


class Draft:
    """Base of the drafts: guesses how a text goes on."""

    def begin(self, network: Network, capacity: int) -> None:
        """Called before each prompt with the network that checks, and the most tokens of prompt and text."""

    def propose(self, text: list[int], count: int, sampler: Sampler, draws: torch.Generator) -> Proposal:
        """Up to ``count`` tokens that may follow the text."""
        raise NotImplementedError


class PromptLookup(Draft):
    """What followed the last few tokens when they occurred before: good for summaries, code and corrections.

    Args:
        longest: Most tokens to look for; fewer are looked for where they did not occur.
    """

    def __init__(self, longest: int = 3) -> None:
        self.longest = longest

    def propose(self, text: list[int], count: int, sampler: Sampler, draws: torch.Generator) -> Proposal:
        """See the base class."""
        for length in range(min(self.longest, len(text) - 1), 0, -1):
            wanted = text[-length:]
            for start in range(len(text) - length - 1, -1, -1):
                if text[start : start + length] == wanted:
                    tokens = text[start + length : start + length + count]
                    return Proposal(tokens, [None] * len(tokens))
        return Proposal([], [])


class DraftNetwork(Draft):
    """A smaller network with the same tokenizer.

    Args:
        network: The smaller network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._text: list[int] = []

    def begin(self, network: Network, capacity: int) -> None:
        """See the base class."""
        if self.network.vocabulary.size != network.vocabulary.size:
            raise UserError(
                f"the draft has {self.network.vocabulary.size} tokens and the network {network.vocabulary.size}: "
                "both must have the same tokenizer"
            )
        self.runner = Runner(self.network)
        self.capacity = capacity
        self._text = []

    def propose(self, text: list[int], count: int, sampler: Sampler, draws: torch.Generator) -> Proposal:
        """See the base class."""
        sampler = sampler.begin()  # what it remembers of tokens that were refused does not matter to the result
        proposal = Proposal([], [])
        logits = self._follow(text)
        for i in range(count):
            said = torch.tensor([text + proposal.tokens], device=logits.device)
            distribution = sampler.choice.distribution(sampler.process(logits, History(said, [0], len(text))))[0]
            token = drawn(distribution, draws)
            proposal.tokens.append(token)
            proposal.distributions.append(distribution)
            if i + 1 < count:
                logits = self.runner.step(torch.tensor([token], device=logits.device))
                self._text.append(token)
        return proposal

    def _follow(self, text: list[int]) -> Tensor:
        """Scores (1, V) of what follows the text; what the cache holds of it is not computed again."""
        if not self._text:
            self._text = list(text)
            return self.runner.prefill([text], self.capacity)
        same = next((i for i, (a, b) in enumerate(zip(self._text, text, strict=False)) if a != b), len(self._text))
        same = min(same, len(text) - 1)
        self.runner.rewind(same)
        self._text = list(text)
        return self.runner.extend([text[same:]])[:, -1]


@dataclass
class Acceptance:
    """How well a draft guessed.

    Args:
        proposed: Tokens that the draft proposed.
        accepted: Those of them that were taken.
        passes: Passes of the network.
    """

    proposed: int = 0
    accepted: int = 0
    passes: int = 0

    @property
    def rate(self) -> float:
        """Share of the proposed tokens that was taken."""
        return self.accepted / max(1, self.proposed)


def drawn(distribution: Tensor, draws: torch.Generator) -> int:
    """A token of a distribution (V,)."""
    mass = distribution.double().cumsum(0).cpu()
    draw = torch.rand(1, generator=draws, dtype=torch.float64) * (1 - 2**-40) * mass[-1]
    return int(torch.searchsorted(mass, draw, right=True))


@torch.inference_mode()
def generate_speculatively(
    network: Network,
    draft: Draft,
    prompts: Sequence[Sequence[int]],
    *,
    sampler: Sampler = ANY_TOKEN,
    max_new_tokens: int = 256,
    proposals: int = 4,
    stop_ids: Collection[int] | None = None,
    seed: int | None = None,
    context: int | None = None,
) -> tuple[list[Completion], Acceptance]:
    """Completes prompts one after the other, several tokens a pass where the draft guesses well.

    Args:
        network: A decoder-only network, whose cache can be rewound.
        draft: What proposes.
        prompts: Token ids.
        sampler: How the next token is found; the greedy text is the one of ``generate``, a drawn one has the same
            distribution but is not the same for the same seed.
        max_new_tokens: Most tokens to add.
        proposals: Most tokens to propose for a pass.
        stop_ids: Tokens that end a completion; left out: the vocabulary's end-of-document.
        seed: Prompt i is decoded with ``seed + i``; left out: drawn from PyTorch's global generator.
        context: Most tokens that the network looks at; left out: the length it was built for.

    Returns:
        A completion for each prompt, and how many proposals were accepted.

    Raises:
        UserError: As ``generate``; also a prompt that leaves no room in the context, or a draft of another vocabulary.
    """
    rows = [list(prompt) for prompt in prompts]
    window = check(network, rows, context)
    width = max(map(len, rows), default=0)
    if window is not None and width + max_new_tokens > window:
        raise UserError(
            f"speculative decoding does not move its window: a prompt of {width} tokens leaves room for "
            f"{window - width} new ones in the context of {window}, and max_new_tokens is {max_new_tokens}"
        )
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    stops, acceptance = stops_of(network, stop_ids), Acceptance()
    completions = []
    with evaluating(network):
        network = worth_forming(network, max_new_tokens, proposals + 1)
        for i, row in enumerate(rows):
            draft.begin(network, len(row) + max_new_tokens)
            writer = _Writer(network, row, sampler, generator_for(seed + i, "speculative"), acceptance)
            completions.append(Completion(i, 0, *_complete(writer, draft, max_new_tokens, proposals, stops)))
    return completions, acceptance


def _complete(
    writer: "_Writer", draft: Draft, steps: int, proposals: int, stops: frozenset[int]
) -> tuple[list[int], list[float], str]:
    prompt = len(writer.text)
    logits = writer.runner.prefill([writer.text], prompt + steps) if steps else None
    proposal = Proposal([], [])
    while logits is not None and len(writer.text) - prompt < steps:
        before = len(writer.text)
        writer.take(logits, proposal)
        for at in range(before, len(writer.text)):
            if writer.text[at] in stops:
                return writer.text[prompt:at], [], "stop id"
        left = steps - (len(writer.text) - prompt)
        if left > 0:
            count = min(proposals, left - 1)
            proposal = (
                draft.propose(writer.text, count, writer.sampler, writer.draws) if count > 0 else Proposal([], [])
            )
            writer.runner.rewind(len(writer.text) - 1)
            logits = writer.runner.extend([[writer.text[-1], *proposal.tokens]])[0]
    return writer.text[prompt:], [], "length"


class _Writer:
    """The text so far, and the rule by which proposals are taken."""

    def __init__(
        self, network: Network, prompt: list[int], sampler: Sampler, draws: torch.Generator, acceptance: Acceptance
    ) -> None:
        self.runner = Runner(network)
        self.text = list(prompt)
        self.prompt_end = len(prompt)
        self.sampler = sampler.begin()
        self.draws = draws
        self.acceptance = acceptance

    def take(self, logits: Tensor, proposal: Proposal) -> None:
        """Appends the proposed tokens that hold, and one more of the network's own.

        A proposal drawn from q is taken with probability p / q; the first that is not is replaced by a draw from what p
        has over q. So each token has the distribution p, whatever q is.
        """
        choice: Choice = self.sampler.choice
        self.acceptance.passes += 1
        self.acceptance.proposed += len(proposal.tokens)
        for i in range(len(proposal.tokens) + 1):
            said = torch.tensor([self.text], device=logits.device)
            scores = self.sampler.process(logits[i : i + 1], History(said, [0], self.prompt_end))
            p = choice.distribution(scores)[0]
            if i == len(proposal.tokens):
                self.text.append(drawn(p, self.draws))
                return
            token = proposal.tokens[i]
            q = proposal.distributions[i]
            if q is None:
                q = torch.zeros_like(p)
                q[token] = 1.0
            if float(torch.rand((), generator=self.draws, dtype=torch.float64)) * float(q[token]) < float(p[token]):
                self.text.append(token)
                self.acceptance.accepted += 1
                continue
            rest = (p - q.to(p.device)).clamp_(min=0.0)
            self.text.append(drawn(rest if bool(rest.any()) else p, self.draws))
            return
