"""From hidden states and target tokens to the negative log-likelihood."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.blocks.embedding import Head

IGNORED = -100
"""The target of places that predict nothing."""


class TokenLoss(nn.Module):
    """Base of the losses: the *sum* of the losses of all target tokens; who divides by what is the task's business."""

    def forward(self, hidden: Float[Tensor, "B T D"], head: Head, targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        """Sum over the targets that are not ``IGNORED``, in float32 at least."""
        raise NotImplementedError


class CrossEntropy(TokenLoss):
    """Negative log-likelihood in nats.

    Args:
        label_smoothing: Share of the target's probability that is spread over the whole vocabulary
            (Szegedy et al., 2016, arXiv:1512.00567).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        """See the base class."""
        logits: Tensor = head(hidden)
        return F.cross_entropy(
            logits.flatten(0, -2).float() if logits.element_size() < 4 else logits.flatten(0, -2),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
