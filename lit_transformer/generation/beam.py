"""Beam search: the most probable completions, as far as a few kept open at each step can find them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.branches import branches_of
from lit_transformer.generation.decoding import Completion, check, stops_of
from lit_transformer.generation.form import worth_forming
from lit_transformer.generation.runner import Runner, evaluating
from lit_transformer.generation.samplers import History, LogitsProcessor
from lit_transformer.networks.base import Network


class Patience:
    """Base of the rules for when a prompt's search ends. All need as many finished beams as there are beams."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """(B,): the best score that an open beam may still reach; the search ends where it is no better than the worst
        finished one.

        Args:
            best: (B,) log-probability of the best open beam.
            length: Its number of new tokens.
            longest: Most new tokens.
            penalty: Exponent of the length.
        """  # fmt: skip
        raise NotImplementedError


class Eager(Patience):
    """Ends as soon as enough beams are finished."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """See the base class."""
        return torch.full_like(best, -torch.inf)


class Likely(Patience):
    """Ends when the open beams, as long as they are now, are no better than the finished ones."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """See the base class."""
        return best.div(length**penalty)


class Certain(Patience):
    """Ends when no open beam can overtake the finished ones, whatever follows."""

    def hope(self, best: Tensor, length: int, longest: int, penalty: float) -> Tensor:
        """See the base class."""
        return best.div((longest if penalty > 0 else length) ** penalty)


@dataclass
class Beams:
    """Beams of all prompts, best first.

    Args:
        scores: (B, K) log-probabilities of open beams, or penalised scores of finished ones.
        tokens: (B, K, N) new tokens.
        lengths: (B, K) number of them.
        ended: (B, K) whether a stop id, which is not among the tokens, ended the beam.
    """

    scores: Tensor
    tokens: Tensor
    lengths: Tensor
    ended: Tensor

    @classmethod
    def none(cls, prompts: int, beams: int, steps: int, device: torch.device) -> "Beams":
        """No beams: places to be filled."""
        whole = torch.zeros(prompts, beams, dtype=torch.long, device=device)
        scores = torch.full((prompts, beams), -torch.inf, device=device)
        return cls(scores, whole.unsqueeze(-1).repeat(1, 1, steps), whole, whole.bool())

    def best(self, others: "Beams", beams: int) -> "Beams":
        """The best of these and others."""
        scores, order = torch.cat((self.scores, others.scores), 1).topk(beams, dim=1)
        tokens = torch.cat((self.tokens, others.tokens), 1)
        tokens = tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        lengths = torch.cat((self.lengths, others.lengths), 1).gather(1, order)
        return Beams(scores, tokens, lengths, torch.cat((self.ended, others.ended), 1).gather(1, order))

    def where(self, condition: Tensor, others: "Beams") -> "Beams":
        """These for the prompts (B,) where the condition holds, else the others."""
        one, two = condition.view(-1, 1), condition.view(-1, 1, 1)
        return Beams(
            torch.where(one, self.scores, others.scores),
            torch.where(two, self.tokens, others.tokens),
            torch.where(one, self.lengths, others.lengths),
            torch.where(one, self.ended, others.ended),
        )


@torch.inference_mode()
def beam_search(
    network: Network,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int = 4,
    max_new_tokens: int = 256,
    stop_ids: Collection[int] | None = None,
    samples: int = 1,
    length_penalty: float = 1.0,
    patience: Patience = Likely(),  # noqa: B008 it holds nothing
    processors: Sequence[LogitsProcessor] = (),
    context: int | None = None,
) -> list[Completion]:
    """The best completions of each prompt by ``log-probability / length ** length_penalty``.

    Args:
        network: One that writes text; the prompts of an encoder-decoder are its sources.
        prompts: Token ids, of different lengths if need be.
        beams: Completions kept open at each step; 1 is greedy decoding.
        max_new_tokens: Most tokens to add.
        stop_ids: Tokens that end a completion; left out: the vocabulary's end-of-document.
        samples: Completions to return for each prompt, at most ``beams``.
        length_penalty: 0 compares whole log-probabilities, which favours short ones; 1 their mean per token.
        patience: When the search ends.
        processors: What acts on the log-probabilities; ones that remember what was chosen cannot be used.
        context: Most tokens that the network looks at; left out: the length it was built for.

    Returns:
        ``samples`` completions for each prompt, best first, with their ``score``.

    Raises:
        UserError: As ``generate``; also a prompt that leaves no room in the context for all new tokens.
    """
    rows = [list(prompt) for prompt in prompts]
    window = check(network, rows, context)
    if min(beams, samples, max_new_tokens) < 1 or samples > beams:
        raise UserError(
            f"beams {beams}, samples {samples} and max_new_tokens {max_new_tokens} must be at least 1, "
            "and samples at most beams"
        )
    if not rows:
        return []
    openings = [network.opening(row) for row in rows]
    width = max(map(len, openings))
    if network.reads_apart and window is not None:
        max_new_tokens = min(max_new_tokens, window)
    if window is not None and width + max_new_tokens - 1 > window:
        raise UserError(
            f"beam search looks at the whole text: a prompt of {width} tokens leaves room for "
            f"{window - width + 1} new ones in the context of {window}, and max_new_tokens is {max_new_tokens}"
        )
    device = next(network.parameters()).device
    stops = torch.tensor(sorted(stops_of(network, stop_ids)), dtype=torch.long, device=device)
    with evaluating(network):
        runner = Runner(worth_forming(network, max_new_tokens, len(rows) * beams))
        finished = _search(runner, rows, openings, beams, max_new_tokens, stops, length_penalty, patience, processors)
    completions = []
    for i in range(len(rows)):
        for j in range(samples):
            tokens = finished.tokens[i, j, : finished.lengths[i, j]].tolist()
            reason = "stop id" if finished.ended[i, j] else "length"
            completions.append(Completion(i, j, tokens, [], reason, score=float(finished.scores[i, j])))
    return completions


def _search(
    runner: Runner, rows: list[list[int]], openings: list[list[int]], beams: int, steps: int, stops: Tensor,
    penalty: float, patience: Patience, processors: Sequence[LogitsProcessor],
) -> Beams:  # fmt: skip
    count, width, device = len(rows), max(map(len, openings)), runner.device
    branches = branches_of(runner, beams)
    logits = branches.begin(rows, width, steps)
    first = torch.arange(count, device=device).repeat_interleave(beams)
    open_, finished = Beams.none(count, beams, steps, device), Beams.none(count, beams, steps, device)
    open_.scores[:, 0] = 0.0  # all beams start alike: only one of them counts
    prompts = torch.tensor([[0] * (width - len(row)) + row for row in openings], device=device)[first]
    starts = [width - len(row) for row in openings for _ in range(beams)]
    searching = torch.ones(count, dtype=torch.bool, device=device)
    for step in range(steps):
        log_p = logits.log_softmax(-1)
        if processors:
            said = torch.cat((prompts, open_.tokens.flatten(0, 1)[:, :step]), 1)
            for processor in processors:
                log_p = processor.begin()(log_p, History(said, starts, width))
        size = log_p.shape[-1]
        totals = log_p.view(count, beams, size).add_(open_.scores.unsqueeze(-1)).flatten(1)
        # With so many candidates enough are left to go on with, even if all stop ids of all beams are among them.
        scores, order = totals.topk(min(beams * (1 + max(1, len(stops))), beams * size), dim=1)
        parents, tokens = order // size, order % size
        texts = open_.tokens.gather(1, parents.unsqueeze(-1).expand(-1, -1, steps))
        stopping = torch.isin(tokens, stops)
        ranked = torch.arange(scores.shape[1], device=device) < beams
        ending = scores.masked_fill(~(stopping & ranked), -torch.inf) / (step + 1) ** penalty
        ended = Beams(ending, texts, torch.full_like(tokens, step), torch.ones_like(stopping))
        finished = finished.best(ended, beams).where(searching, finished)
        scores, kept = scores.masked_fill(stopping, -torch.inf).topk(beams, dim=1)
        parents, tokens = parents.gather(1, kept), tokens.gather(1, kept)
        texts = texts.gather(1, kept.unsqueeze(-1).expand(-1, -1, steps))
        texts[:, :, step] = tokens
        open_ = Beams(scores, texts, torch.full_like(tokens, step + 1), torch.zeros_like(stopping[:, :beams]))
        hope = patience.hope(scores[:, 0], step + 1, steps, penalty)
        worst = finished.scores[:, -1]
        searching = searching & (worst.isinf() | (worst < hope))
        if step + 1 == steps or not bool(searching.any()):
            break
        logits = branches.step(parents, tokens)
    open_.scores /= (step + 1) ** penalty
    return finished.best(open_, beams).where(searching, finished)
