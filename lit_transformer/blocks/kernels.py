"""How attention is computed. The eager kernel is the specification; the others are proven against it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.context import Visibility
from lit_transformer.blocks.position import Bias

EVERYTHING = slice(None)


class Kernel(nn.Module):
    """Base of the kernels: scaled dot-product attention over grouped heads.

    A query that may look at nothing gives zeros, and no gradient.
    """

    takes_bias = True
    """Whether a position that acts on the scores (ALiBi, T5) can be used with this kernel."""

    takes_values = False
    """Whether it has ``weights``, so that a position that acts on the values (Shaw) can be used with this kernel."""

    def forward(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B G S K"],
        v: Float[Tensor, "B G S K"],
        visible: Visibility,
        bias: Bias | None = None,
        dropout: float = 0.0,
    ) -> Float[Tensor, "B H T K"]:
        """Softmax of ``q k / sqrt(K) + bias`` over the visible keys, times ``v``."""
        raise NotImplementedError

    def weights(self, q: Tensor, k: Tensor, visible: Visibility, bias: Bias | None = None) -> Tensor:
        """Attention weights (B, H, T, S), of a kernel that ``takes_values``."""
        raise NotImplementedError


class EagerKernel(Kernel):
    """Step by step, with the whole T x S matrix in memory: to be read, and to be compared with."""

    takes_values = True

    def weights(self, q: Tensor, k: Tensor, visible: Visibility, bias: Bias | None = None) -> Tensor:
        """Attention weights (B, H, T, S); softmax in float32 at least."""
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if bias is not None:
            scores = scores + bias(EVERYTHING, EVERYTHING)
        scores = scores.masked_fill(~visible.dense.unsqueeze(1), -torch.inf)
        weights: Tensor = scores.masked_fill(visible.blind.unsqueeze(1), 0.0).softmax(-1)
        weights = weights.masked_fill(visible.blind.unsqueeze(1), 0.0)
        return weights.to(q.dtype)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None = None, dropout: float = 0.0
    ) -> Tensor:
        """See the base class."""
        weights = F.dropout(self.weights(q, k, visible, bias), dropout)
        y: Tensor = weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        return y


class SdpaKernel(Kernel):
    """PyTorch's fused kernel: flash attention where the hardware, the mask and the bias allow it."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None = None, dropout: float = 0.0
    ) -> Tensor:
        """See the base class."""
        mask, causal, blind = None, False, None
        if bias is None and visible.hides_nothing:
            pass
        elif bias is None and visible.is_causal:
            causal = True
        else:
            blind = None if visible.hides_nothing or visible.is_causal else visible.blind.unsqueeze(1)
            mask = visible.dense.unsqueeze(1)
            if blind is not None:
                mask = mask | blind  # a row without any key would be NaN; its output is dropped below
            if bias is not None:
                mask = bias(EVERYTHING, EVERYTHING).to(q.dtype).masked_fill(~mask, -torch.inf)
        grouped = q.shape[1] != k.shape[1]
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, enable_gqa=grouped)
        return y if blind is None else y.masked_fill(blind, 0.0)
