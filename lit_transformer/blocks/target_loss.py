"""A loss that looks at the targets alone."""

from torch import Tensor

from lit_transformer.blocks.embedding import Head
from lit_transformer.blocks.loss import IGNORED, ChunkedCrossEntropy, TokenLoss


class AtTargets(TokenLoss):
    """Another loss, of the places that have a target: where few have one, the logits of the others cost the most.

    Args:
        loss: The loss; left out: ChunkedCrossEntropy.
    """

    def __init__(self, loss: TokenLoss | None = None) -> None:
        super().__init__()
        self.loss = loss or ChunkedCrossEntropy()

    def forward(self, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        """See the base class."""
        keep = targets != IGNORED
        total: Tensor = self.loss(hidden[keep].unsqueeze(0), head, targets[keep].unsqueeze(0))
        return total
