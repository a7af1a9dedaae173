"""Processors that cut the distribution by its own shape rather than by a rank or a share."""

import copy
import math

import torch
from torch import Tensor

from lit_transformer.errors import UserError
from lit_transformer.generation.samplers import History, LogitsProcessor, last_kept


def in_unit_interval(name: str, value: float) -> float:
    """The value, refused where it is not in (0, 1)."""
    if not 0 < value < 1:
        raise UserError(f"{name}: is {value}, must be between 0 and 1")
    return value


def keep(logits: Tensor, kept: Tensor) -> Tensor:
    """Rules out what is not kept; the most probable token always stays."""
    return logits.masked_fill_(~kept & (logits < logits.amax(-1, keepdim=True)), -torch.inf)


class TypicalP(LogitsProcessor):
    """The tokens whose surprise is nearest to the mean surprise, until they hold a share p (Meister et al., 2023,
    arXiv:2202.00666).

    Args:
        p: The share.
    """  # fmt: skip

    def __init__(self, p: float) -> None:
        self.p = in_unit_interval("typical_p", p)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        log_p = logits.log_softmax(-1)
        p = log_p.exp()
        distance = (log_p + torch.special.entr(p).sum(-1, keepdim=True)).abs()
        ranked, order = distance.sort(dim=-1)
        return logits.masked_fill_(distance > last_kept(ranked, p.gather(-1, order).cumsum(-1), self.p), -torch.inf)


class Epsilon(LogitsProcessor):
    """The tokens with at least a given probability (Hewitt et al., 2022, arXiv:2210.15191).

    Args:
        probability: The least one, such as 0.0003 to 0.0009.
    """

    def __init__(self, probability: float) -> None:
        self.probability = in_unit_interval("epsilon", probability)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        return keep(logits, logits.softmax(-1) >= self.probability)


class Eta(LogitsProcessor):
    """The tokens with at least a given probability, or less where the distribution is flat (Hewitt et al., 2022,
    arXiv:2210.15191): ``min(epsilon, sqrt(epsilon) * exp(-entropy))``.

    Args:
        epsilon: The least probability, such as 0.0003 to 0.002.
    """  # fmt: skip

    def __init__(self, epsilon: float) -> None:
        self.epsilon = in_unit_interval("eta", epsilon)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        p = logits.softmax(-1)
        flat = math.sqrt(self.epsilon) * (-torch.special.entr(p).sum(-1, keepdim=True)).exp()
        return keep(logits, p >= flat.clamp(max=self.epsilon))


class Mirostat(LogitsProcessor):
    """Holds the surprise of the text near a target, by moving a bound on it after each token (Basu et al., 2021,
    arXiv:2007.14966; the second version, which bounds the surprise itself).

    Args:
        target: Surprise aimed at, in bits per token.
        rate: How much of the error the bound moves by.
    """  # fmt: skip

    def __init__(self, target: float = 3.0, rate: float = 0.1) -> None:
        if target <= 0 or rate <= 0:
            raise UserError(f"mirostat: target {target} and rate {rate} must be above 0")
        self.target = target
        self.rate = rate
        self._surprise: Tensor | None = None
        self._bound: Tensor | None = None

    def begin(self) -> "Mirostat":
        """A copy that starts anew."""
        fresh = copy.copy(self)
        fresh._surprise = fresh._bound = None
        return fresh

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        """See the base class."""
        if self._surprise is None or self._bound is None:
            self._bound = torch.full((len(logits), 1), 2 * self.target, device=logits.device)
        else:
            error = self._surprise.gather(-1, history.tokens[:, -1:]) - self.target
            self._bound = self._bound - self.rate * error
        self._surprise = logits.log_softmax(-1).mul_(-1 / math.log(2))
        return keep(logits, self._surprise <= self._bound)
