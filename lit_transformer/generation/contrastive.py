"""Contrastive search: probable tokens that are unlike what was said."""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.decoding import Completion, check, stops_of
from lit_transformer.generation.form import worth_forming
from lit_transformer.generation.runner import Runner, evaluating, left_padded
from lit_transformer.networks.base import Network


@torch.inference_mode()
def contrastive_search(
    network: Network,
    prompts: Sequence[Sequence[int]],
    *,
    candidates: int = 4,
    alpha: float = 0.6,
    max_new_tokens: int = 256,
    stop_ids: Collection[int] | None = None,
    context: int | None = None,
) -> list[Completion]:
    """Of the most probable tokens takes the one with the best ``(1 - alpha) * probability - alpha * similarity``, the
    largest cosine of its hidden state with an earlier one (Su et al., 2022, arXiv:2202.06417). Nothing is drawn.

    Args:
        network: One that writes text.
        prompts: Token ids, of different lengths if need be.
        candidates: How many of the most probable tokens are looked at; 1 is greedy decoding.
        alpha: From 0, greedy decoding, to 1, which only avoids repetition.
        max_new_tokens: Most tokens to add.
        stop_ids: Tokens that end a completion; left out: the vocabulary's end-of-document.
        context: Most tokens that the network looks at; left out: the length it was built for.

    Raises:
        UserError: As ``generate``; also a prompt that leaves no room in the context for all new tokens.
    """  # fmt: skip
    rows = [list(prompt) for prompt in prompts]
    window = check(network, rows, context)
    if candidates < 1 or not 0 <= alpha <= 1 or max_new_tokens < 1:
        raise UserError(f"contrastive search: candidates {candidates} and max_new_tokens {max_new_tokens} must be at "
                        f"least 1, and alpha {alpha} between 0 and 1")  # fmt: skip
    if not rows:
        return []
    width = max(len(network.opening(row)) for row in rows)
    if window is not None and width + max_new_tokens > window:
        raise UserError(f"contrastive search looks at the whole text: a prompt of {width} tokens leaves room for "
                        f"{window - width} new ones in the context of {window}, and max_new_tokens is "
                        f"{max_new_tokens}")  # fmt: skip
    stops = stops_of(network, stop_ids)
    completions = [Completion(i, 0) for i in range(len(rows))]
    with evaluating(network):
        runner = Runner(worth_forming(network, max_new_tokens, len(rows) * candidates))
        logits = runner.prefill(rows, width + max_new_tokens)
        assert runner.hidden is not None
        said = F.normalize(runner.hidden.float(), dim=-1)
        real = torch.ones(said.shape[:2], dtype=torch.bool, device=said.device)
        if not network.reads_apart:
            real = left_padded(rows, said.device)[1] >= 0
        for step in range(max_new_tokens):
            logits, chosen, state = _choose(runner, logits, said, real, candidates, alpha)
            said = torch.cat((said, state.unsqueeze(1)), 1)
            real = F.pad(real, (0, 1), value=True)
            for completion, token in zip(completions, chosen.tolist(), strict=True):
                if completion.reason is None and token in stops:
                    completion.reason = "stop id"
                elif completion.reason is None:
                    completion.tokens.append(token)
                    completion.reason = "length" if step + 1 == max_new_tokens else None
            if all(completion.reason for completion in completions):
                break
    return completions


def _choose(
    runner: Runner, logits: Tensor, said: Tensor, real: Tensor, candidates: int, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores behind the chosen tokens (R, V), the tokens (R,) and their states (R, D); the runner has read them."""
    probabilities, tokens = logits.softmax(-1).topk(min(candidates, logits.shape[-1]), dim=-1)
    rows, count = tokens.shape
    place = torch.arange(rows, device=tokens.device)
    runner.reorder(place.repeat_interleave(count))
    after = runner.step(tokens.flatten())
    assert runner.hidden is not None
    states = F.normalize(runner.hidden[:, -1].float(), dim=-1).view(rows, count, -1)
    likeness = (states @ said.mT).masked_fill(~real.unsqueeze(1), -torch.inf).amax(-1)
    best = ((1 - alpha) * probabilities - alpha * likeness).argmax(-1)
    runner.reorder(place * count + best)
    return after[place * count + best], tokens[place, best], states[place, best]
