"""Losses that never hold all logits, on any device: chunk by chunk in plain PyTorch, or in one of Liger's kernels."""

import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lit_transformer.blocks.embedding import Head
from lit_transformer.blocks.loss import IGNORED, CrossEntropy, TokenLoss
from lit_transformer.dims import SizeError
from lit_transformer.errors import UserError


class RecomputedCrossEntropy(CrossEntropy):
    """The same number and gradient, with the logits of ``chunk`` tokens at a time, computed again going backward.

    For any head, device and type of numbers; one more product with the head's weights is what it costs.

    Args:
        label_smoothing: Share of the target's probability that is spread over the whole vocabulary
            (Szegedy et al., 2016, arXiv:1512.00567).
        chunk: Most tokens whose logits are held at a time.
    """

    def __init__(self, label_smoothing: float = 0.0, chunk: int = 1024) -> None:
        super().__init__(label_smoothing)
        if chunk < 1:
            raise SizeError("loss.chunk", f"is {chunk}, must be at least 1")
        self.chunk = chunk

    def forward(self, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        """See the base class."""
        places, targets = hidden.flatten(0, -2).unsqueeze(0), targets.flatten().unsqueeze(0)
        plain = super().forward
        if places.shape[1] <= self.chunk or not torch.is_grad_enabled():
            parts = [plain(x, head, y) for x, y in self._chunks(places, targets)]
        else:
            parts = [checkpoint(plain, x, head, y, use_reentrant=False) for x, y in self._chunks(places, targets)]
        return torch.stack(parts).sum()

    def _chunks(self, hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(hidden.split(self.chunk, 1), targets.split(self.chunk, 1), strict=True)


class LigerCrossEntropy(TokenLoss):
    """Head and loss in one kernel of Liger's for GPUs (Hsu et al., 2024, arXiv:2410.10989); extra ``liger``.

    Args:
        label_smoothing: Share of the target's probability that is spread over the whole vocabulary.

    Raises:
        UserError: The package, or a GPU, is missing.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if importlib.util.find_spec("liger_kernel") is None:
            raise UserError("model.loss: LigerCrossEntropy needs a package: pip install 'lit-transformer[liger]'; or "
                            "use RecomputedCrossEntropy")  # fmt: skip
        if not torch.cuda.is_available():
            raise UserError("model.loss: LigerCrossEntropy needs a GPU; use ChunkedCrossEntropy")
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        self.fused = LigerFusedLinearCrossEntropyLoss(
            ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum"
        )

    def forward(self, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        """See the base class.

        Raises:
            UserError: The head is more than a product.
        """
        if type(head).forward is not Head.forward:
            raise UserError(f"model.loss: LigerCrossEntropy cannot compute a {type(head).__name__}; use "
                            "RecomputedCrossEntropy")  # fmt: skip
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        loss: Tensor = self.fused(head.weight.to(dtype), hidden.flatten(0, -2).to(dtype), targets.flatten())
        return loss
