"""The decoding loop: one token at a time, for a batch of prompts of any lengths, over a network and its cache."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.caches import Remembering
from lit_transformer.generation.form import worth_forming
from lit_transformer.generation.runner import Runner, evaluating
from lit_transformer.generation.samplers import Greedy, History, Multinomial, Sampler
from lit_transformer.networks.base import Network
from lit_transformer.networks.initialisation import generator_for


@dataclass
class Completion:
    """What follows one prompt, growing while it is decoded.

    Args:
        prompt: Number of the prompt.
        sample: Number of the sample of that prompt.
        tokens: The new tokens, without the prompt and without the stop id.
        log_probabilities: Of each new token under the network itself, before any processor; empty unless asked for.
        reason: Why it ended ("stop id", "stop string", "length", or what a callback wrote); None as long as it grows.
        text: The new tokens as text, where a tokenizer was at hand.
        score: What a search compared completions by.
    """

    prompt: int
    sample: int
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    reason: str | None = None
    text: str = ""
    score: float | None = None


ANY_TOKEN = Sampler((), Multinomial())
"""Draws from the network's own distribution."""

Callback = Callable[[list[Completion]], None]
"""Called after each step with the completions that grew; one that gets a ``reason`` from it stops."""


def generate(
    network: Network,
    prompts: Sequence[Sequence[int]] | Tensor,
    *,
    sampler: Sampler = ANY_TOKEN,
    max_new_tokens: int = 256,
    stop_ids: Collection[int] | None = None,
    samples: int = 1,
    seed: int | None = None,
    context: int | None = None,
    log_probabilities: bool = False,
    remembering: Remembering | None = None,
    callback: Callback | None = None,
) -> list[Completion]:
    """Completes prompts; a completion is the same whatever else is in the batch.

    Args:
        network: One that writes text; the prompts of an encoder-decoder are its sources.
        prompts: Token ids, of different lengths if need be; a tensor (B, T) where all are equally long.
        sampler: How the next token is found.
        max_new_tokens: Most tokens to add.
        stop_ids: Tokens that end a completion; left out: the vocabulary's end-of-document.
        samples: Completions per prompt.
        seed: Prompt i is decoded with ``seed + i``; left out: drawn from PyTorch's global generator.
        context: Most tokens that the network looks at; left out: the length it was built for. When the window is full,
            its older half is forgotten and decoding goes on.
        log_probabilities: Whether to record them.
        remembering: How the cache remembers: all (left out), ``Int8Remembering``, ``Streaming``, ``SharedPrefix``.
        callback: Is called after each step with the completions that grew.

    Returns:
        ``samples`` completions for each prompt, in order.

    Raises:
        UserError: An empty prompt, one with an unknown token, or one longer than the context.
    """
    completions: list[Completion] = []
    for grown in decode(
        network,
        prompts,
        sampler=sampler,
        max_new_tokens=max_new_tokens,
        stop_ids=stop_ids,
        samples=samples,
        seed=seed,
        context=context,
        log_probabilities=log_probabilities,
        remembering=remembering,
        completions=completions,
    ):
        if callback is not None:
            callback(grown)
    return completions


@torch.inference_mode()
def decode(
    network: Network,
    prompts: Sequence[Sequence[int]] | Tensor,
    *,
    sampler: Sampler = ANY_TOKEN,
    max_new_tokens: int = 256,
    stop_ids: Collection[int] | None = None,
    samples: int = 1,
    seed: int | None = None,
    context: int | None = None,
    log_probabilities: bool = False,
    remembering: Remembering | None = None,
    completions: list[Completion],
) -> Iterator[list[Completion]]:
    """The loop behind ``generate``, as an iterator: yields after each step the completions that grew.

    Args:
        completions: Is filled with the completions at the start; the others are ``generate``'s.
    """
    rows = prompts.tolist() if isinstance(prompts, Tensor) else [list(prompt) for prompt in prompts]
    window = check(network, rows, context)
    if max_new_tokens < 0 or samples < 1:
        key, value, least = ("samples", samples, 1) if samples < 1 else ("max_new_tokens", max_new_tokens, 0)
        raise UserError(f"{key}: is {value}, must be at least {least}")
    completions.extend(Completion(i, j) for i in range(len(rows)) for j in range(samples))
    if not rows or not max_new_tokens:
        for completion in completions:
            completion.reason = "length"
        return
    stops = stops_of(network, stop_ids)
    sampler = sampler.begin()
    device = next(network.parameters()).device
    draws = uniform(completions, max_new_tokens, seed, sampler, device)
    copies = torch.arange(len(rows), device=device).repeat_interleave(samples)
    openings = [network.opening(row) for row in rows]
    if network.reads_apart and window is not None:
        max_new_tokens = min(max_new_tokens, window)  # it cannot start anew from the end of what it wrote
    text = Transcript(openings, samples, max_new_tokens, device)
    active = list(completions)
    with evaluating(network):
        runner = Runner(worth_forming(network, max_new_tokens, len(active)), remembering)
        capacity = text.prompt_end + max_new_tokens - 1
        logits = runner.prefill(rows, capacity if window is None else min(capacity, window))
        if samples > 1:
            runner.reorder(copies)
            logits = logits[copies]
        for step in range(max_new_tokens):
            raw = logits.log_softmax(-1) if log_probabilities else None
            chosen = sampler(logits, text.history(), draws[:, step])
            text.append(chosen)
            ids = chosen.tolist()
            scores = None if raw is None else raw.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).tolist()
            grown = []
            for completion in active:
                row = completion.prompt * samples + completion.sample
                if ids[row] in stops:
                    completion.reason = "stop id"
                    continue
                completion.tokens.append(ids[row])
                if scores is not None:
                    completion.log_probabilities.append(scores[row])
                if step + 1 == max_new_tokens:
                    completion.reason = "length"
                grown.append(completion)
            if grown:
                yield grown
            active = [completion for completion in active if completion.reason is None]
            if not active:
                return
            if window is not None and runner.length >= window and not runner.remembering.endless:
                tails = text.tails(window, {completion.prompt * samples + completion.sample for completion in active})
                logits = runner.prefill(tails, min(window, max(map(len, tails)) + max_new_tokens - step))
            else:
                logits = runner.step(chosen)


def stops_of(network: Network, stop_ids: Collection[int] | None) -> frozenset[int]:
    """The tokens that end a completion."""
    if stop_ids is None:
        stop_ids = () if network.vocabulary.eos_id is None else (network.vocabulary.eos_id,)
    return frozenset(stop_ids)


def check(network: Network, rows: Sequence[Sequence[int]], context: int | None) -> int | None:
    """The window to decode in, once the prompts are known to fit it and the vocabulary."""
    window = network.dims.max_len if context is None else context
    if window is not None and window < 2:
        raise UserError(f"context: is {window}, must be at least 2")
    if context is not None and network.dims.max_len is not None and context > network.dims.max_len:
        # Positions that end somewhere (Learned) say so now, not in the middle of a text.
        far = torch.full((1, 1), context - 1, device=next(network.parameters()).device)
        network(torch.zeros_like(far), positions=far)
    own = network.vocabulary.source_size if network.reads_apart else None
    size = network.vocabulary.size if own is None else own
    for i, row in enumerate(rows):
        which = "the prompt" if len(rows) == 1 else f"prompt {i}"
        if not row:
            raise UserError(f"{which} is empty: give it one token at least")
        if window is not None and len(row) > window:
            raise UserError(f"{which} has {len(row)} tokens and the context holds {window}: shorten it")
        if min(row) < 0 or max(row) >= size:
            wrong = next(token for token in row if not 0 <= token < size)
            raise UserError(f"{which} has token {wrong} and the vocabulary ends at {size - 1}: wrong tokenizer?")
    return window


def uniform(
    completions: Sequence[Completion], steps: int, seed: int | None, sampler: Sampler, device: torch.device
) -> Tensor:
    """(R, steps) uniform draws in float64, each row from its prompt's seed and its sample's number alone."""
    if isinstance(sampler.choice, Greedy):
        return torch.zeros(len(completions), 1, dtype=torch.float64).expand(-1, steps)
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    draws = torch.empty(len(completions), steps, dtype=torch.float64)
    for row, completion in zip(draws, completions, strict=True):
        row.uniform_(generator=generator_for(seed + completion.prompt, str(completion.sample)))
    draws.mul_(1 - 2**-40)  # so that draw * mass stays below mass, whatever the rounding
    return draws if device.type == "mps" else draws.to(device)


class Transcript:
    """Prompts and new tokens in one preallocated tensor, prompts padded on the left."""

    def __init__(self, prompts: Sequence[Sequence[int]], samples: int, new_tokens: int, device: torch.device) -> None:
        self.prompt_end = self.end = max(map(len, prompts))
        self.starts = [self.end - len(prompt) for prompt in prompts for _ in range(samples)]
        self._window_starts = list(self.starts)
        self.tokens = torch.zeros(len(self.starts), self.end + new_tokens, dtype=torch.long, device=device)
        for i, start in enumerate(self.starts):
            self.tokens[i, start : self.end] = torch.tensor(prompts[i // samples], device=device)

    def append(self, tokens: Tensor) -> None:
        """One more token (R,) for each row."""
        self.tokens[:, self.end] = tokens
        self.end += 1

    def history(self) -> History:
        """What processors look back at: views, no copies."""
        return History(self.tokens[:, : self.end], self.starts, self.prompt_end)

    def tails(self, window: int, wanted: Collection[int]) -> list[list[int]]:
        """What each row goes on with when the window is full: rows that do not fit keep half of it.

        Rows that are done only hold their place.
        """
        rows = self.tokens[:, : self.end].tolist()
        for i, start in enumerate(self._window_starts):
            if self.end - start > window:
                self._window_starts[i] = self.end - window // 2
        return [row[start:] if i in wanted else row[-1:]
                for i, (row, start) in enumerate(zip(rows, self._window_starts, strict=True))]  # fmt: skip
