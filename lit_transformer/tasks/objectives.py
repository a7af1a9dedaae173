"""What is minimised on a batch, beyond the likelihood of one pass."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lit_transformer.data.batch import IGNORED, LanguageBatch
from lit_transformer.errors import UserError
from lit_transformer.networks.base import Output

if TYPE_CHECKING:
    from lit_transformer.tasks.prediction import TokenPrediction


class Objective:
    """Base of the objectives: the task's loss of one pass through the network."""

    def __call__(self, task: "TokenPrediction", batch: LanguageBatch) -> tuple[Float[Tensor, ""], Output]:
        """Sum of the losses at all targets, and what the network returned."""
        output: Output = task(batch)
        return task.loss(output.hidden, output.head, batch.targets), output


class RDrop(Objective):
    """Two passes with different dropout, which are to agree (Wu et al., 2021, arXiv:2106.14448).

    The loss is the mean of both passes' plus ``alpha / 4`` times the sum of both Kullback-Leibler divergences: half of
    the paper's, so that the rate that suits one pass suits it too. A step takes twice as long.

    Args:
        alpha: Weight of the divergence; 5 in the paper's translation.
    """

    def __init__(self, alpha: float = 5.0) -> None:
        if alpha < 0:
            raise UserError(f"model.objective.alpha: is {alpha}, must be at least 0")
        self.alpha = alpha

    def __call__(self, task: "TokenPrediction", batch: LanguageBatch) -> tuple[Float[Tensor, ""], Output]:
        """See the base class."""
        one, output = super().__call__(task, batch)
        other, second = super().__call__(task, batch)
        predicted = batch.targets != IGNORED
        logits = [each.head(each.hidden[predicted]) for each in (output, second)]
        p, q = (each.log_softmax(-1, dtype=torch.promote_types(each.dtype, torch.float32)) for each in logits)
        divergence = ((p.exp() - q.exp()) * (p - q)).sum()  # both directions at once
        return (one + other) / 2 + self.alpha / 4 * divergence, output
