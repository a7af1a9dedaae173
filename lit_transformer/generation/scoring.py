"""How probable a given text is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_transformer.errors import UserError
from lit_transformer.generation.runner import evaluating
from lit_transformer.generation.text import Tokenizer, encode_known
from lit_transformer.networks.base import Network


@dataclass(frozen=True)
class Score:
    """The likelihood of a text.

    Args:
        tokens: The tokens that were predicted: all, or all but the first where nothing comes before it.
        log_probabilities: Of each of them, in nats.
        bytes: UTF-8 bytes of the text that they stand for.
    """

    tokens: list[int]
    log_probabilities: list[float]
    bytes: int

    @property
    def log_likelihood(self) -> float:
        """Sum of the log-probabilities, in nats."""
        return math.fsum(self.log_probabilities)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-probability of a token; NaN where no token was predicted."""
        return math.exp(-self.log_likelihood / len(self.tokens)) if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits needed for a byte of text, whatever the tokenizer; NaN where no byte was predicted."""
        return -self.log_likelihood / math.log(2) / self.bytes if self.bytes else math.nan


def score(network: Network, tokenizer: Tokenizer, text: str, context: int | None = None) -> Score:
    """The log-likelihood of a text as a document.

    Args:
        network: A decoder-only network.
        tokenizer: The one that it was trained with.
        text: The text. Longer than the context, it is read in windows that overlap by half.
        context: Most tokens to look at; left out: the length that the network was built for.

    Raises:
        UserError: Characters that the tokenizer does not know.
    """
    tokens = encode_known(tokenizer, text, "the text")
    vocabulary = network.vocabulary
    start = vocabulary.eos_id if vocabulary.bos_id is None else vocabulary.bos_id
    size = len(text.encode())
    if start is None:
        first = tokens[:1]
        size -= len(tokenizer.decode(first).encode()) if first else 0
        return Score(tokens[1:], log_probabilities(network, tokens, context), max(size, 0))
    return Score(tokens, log_probabilities(network, [start, *tokens], context), size)


@torch.inference_mode()
def log_probabilities(network: Network, tokens: Sequence[int], context: int | None = None) -> list[float]:
    """Of every token but the first, given those before it; each is predicted from half a context at least."""
    window = context or network.dims.max_len or max(len(tokens), 2)
    if window < 2:
        raise UserError(f"context: is {window}, must be at least 2")
    row = torch.tensor(tokens, device=next(network.parameters()).device)
    found: list[float] = []
    with evaluating(network):
        start = 0
        while len(found) + 1 < len(tokens):
            inputs = row[start : start + window]
            targets = row[start + 1 : start + window + 1]
            fresh = len(found) - start  # the targets before it were predicted in the window before
            output = network(inputs.unsqueeze(0))
            logits = output.head(output.hidden[:, fresh : len(targets)])[0].float()
            chosen = logits.log_softmax(-1).gather(-1, targets[fresh:].unsqueeze(-1))
            found += chosen.squeeze(-1).tolist()
            start += max(1, window // 2)
    return found
