"""Beam search: the most probable completions, as far as a few kept open at each step can find them."""

from collections.abc import Collection, Sequence

import torch

from lit_transformer.errors import UserError
from lit_transformer.generation.branches import branches_of
from lit_transformer.generation.decoding import Completion, check, stops_of
from lit_transformer.generation.form import worth_forming
from lit_transformer.generation.rescoring import Rescoring
from lit_transformer.generation.runner import Runner, evaluating
from lit_transformer.generation.samplers import History, LogitsProcessor
from lit_transformer.generation.selection import Beams, Likely, Patience, Rules, Selection
from lit_transformer.networks.base import Network


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
    selection: Selection = Selection(),  # noqa: B008 it holds nothing
    rescoring: Rescoring | None = None,
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
        selection: Which beams go on: the best (left out), ``Diverse`` groups, or ones ``Containing`` given phrases.
        rescoring: What is added to the scores of the beams found, ``Coverage`` of the source say; left out: nothing.

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
        rules = Rules(max_new_tokens, stops, length_penalty, patience)
        finished = _search(runner, rows, openings, beams, rules, selection, processors)
        if rescoring is not None:
            finished.scores += rescoring(network, rows, finished.tokens, finished.lengths)
            finished = Beams.none(len(rows), beams, max_new_tokens, device).best(finished, beams)
    completions = []
    for i in range(len(rows)):
        for j in range(samples):
            tokens = finished.tokens[i, j, : finished.lengths[i, j]].tolist()
            reason = "stop id" if finished.ended[i, j] else "length"
            completions.append(Completion(i, j, tokens, [], reason, score=float(finished.scores[i, j])))
    return completions


def _search(
    runner: Runner, rows: list[list[int]], openings: list[list[int]], beams: int, rules: Rules, selection: Selection,
    processors: Sequence[LogitsProcessor],
) -> Beams:  # fmt: skip
    count, width, device = len(rows), max(map(len, openings)), runner.device
    branches = branches_of(runner, beams)
    logits = branches.begin(rows, width, rules.steps)
    groups = selection.begin(count, beams, rules)
    first = torch.arange(count, device=device).repeat_interleave(beams)
    prompts = torch.tensor([[0] * (width - len(row)) + row for row in openings], device=device)[first]
    starts = [width - len(row) for row in openings for _ in range(beams)]
    for step in range(rules.steps):
        log_p = logits.log_softmax(-1)
        if processors:
            texts = torch.cat([group.open.tokens for group in groups], 1).flatten(0, 1)
            said = torch.cat((prompts, texts[:, :step]), 1)
            for processor in processors:
                log_p = processor.begin()(log_p, History(said, starts, width))
        parents, tokens = selection.step(groups, log_p.view(count, beams, -1), step)
        if step + 1 == rules.steps or not any(bool(group.searching.any()) for group in groups):
            break
        logits = branches.step(parents, tokens)
    found = [group.result(step) for group in groups]
    best = found[0]
    for others in found[1:]:
        best = best.best(others, best.scores.shape[1] + others.scores.shape[1])
    return best
