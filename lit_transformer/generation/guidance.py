"""Classifier-free guidance: away from what another prompt would say."""

import copy
from collections.abc import Sequence

from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.form import worth_forming
from lit_transformer.generation.runner import Runner
from lit_transformer.generation.samplers import History, LogitsProcessor
from lit_transformer.networks.base import Network


class Guidance(LogitsProcessor):
    """Scores move away from those behind a negative prompt: ``negative + scale * (score - negative)``, of
    log-probabilities (Sanchez et al., 2023, arXiv:2306.17806). Costs a second pass for each token.

    Args:
        network: The network that decodes.
        negative: Token ids of the negative prompt; the text is continued behind it too. For no prompt at all give the
            last token of the prompt, or the token that begins a text.
        scale: 1 changes nothing; 1.5 is the paper's for a chat.
        max_new_tokens: Most tokens of the text.
    """  # fmt: skip

    def __init__(
        self, network: Network, negative: Sequence[int], scale: float = 1.5, max_new_tokens: int = 256
    ) -> None:
        if not negative:
            raise UserError("guidance: the negative prompt is empty; give it one token at least")
        self.negative, self.scale, self.max_new_tokens = list(negative), scale, max_new_tokens
        self._network = network
        self._runner: Runner | None = None

    def begin(self) -> "Guidance":
        """A copy with nothing said."""
        fresh = copy.copy(self)
        fresh._runner = None
        return fresh

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if self._runner is None:
            self._runner = Runner(worth_forming(self._network, self.max_new_tokens, len(logits)))
            window, length = self._network.dims.max_len, len(self.negative) + self.max_new_tokens - 1
            if window is not None and length > window and not self._network.reads_apart:
                raise UserError(f"guidance: the negative prompt and max_new_tokens take {length} places, and the "
                                f"context holds {window}")  # fmt: skip
            other = self._runner.prefill([self.negative] * len(logits), length)
        elif history.new_tokens >= self.max_new_tokens:
            raise UserError(f"guidance: was made for max_new_tokens {self.max_new_tokens}; say how many there will be")
        else:
            other = self._runner.step(history.tokens[:, -1])
        other = other.log_softmax(-1)
        return other + self.scale * (logits.log_softmax(-1) - other)
