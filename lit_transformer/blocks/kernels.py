"""How attention is computed. The eager kernel is the specification; the others are proven against it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.blocked import BlockedAttention
from lit_transformer.blocks.context import Visibility
from lit_transformer.blocks.position import Bias
from lit_transformer.blocks.products import multiplies
from lit_transformer.blocks.schedule import schedule
from lit_transformer.dims import SizeError

EVERYTHING = slice(None)


class Kernel(nn.Module):
    """Base of the kernels: scaled dot-product attention over grouped heads.

    A query that may look at nothing gives zeros, and no gradient.
    """

    takes_bias = True
    """Whether a position that acts on the scores (ALiBi, T5) can be used with this kernel."""

    takes_soft_cap = True
    """Whether scores can be capped (Gemma 2)."""

    takes_dropout = True
    """Whether attention weights can be dropped in training."""

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
        soft_cap: float | None = None,
    ) -> Float[Tensor, "B H T K"]:
        """Softmax of ``capped(q k / sqrt(K)) + bias`` over the visible keys, times ``v``.

        With a ``soft_cap`` c, scores s become ``c tanh(s / c)`` and stay between -c and c.
        """
        raise NotImplementedError

    def weights(
        self, q: Tensor, k: Tensor, visible: Visibility, bias: Bias | None = None, soft_cap: float | None = None
    ) -> Tensor:
        """Attention weights (B, H, T, S), of a kernel that ``takes_values``."""
        raise NotImplementedError


class EagerKernel(Kernel):
    """Step by step, with the whole T x S matrix in memory: to be read, and to be compared with."""

    takes_values = True

    def weights(
        self, q: Tensor, k: Tensor, visible: Visibility, bias: Bias | None = None, soft_cap: float | None = None
    ) -> Tensor:
        """Attention weights (B, H, T, S); softmax in float32 at least."""
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if soft_cap is not None:
            scores = (scores / soft_cap).tanh() * soft_cap
        if bias is not None:
            scores = scores + bias(EVERYTHING, EVERYTHING)
        scores = scores.masked_fill(~visible.dense.unsqueeze(1), -torch.inf)
        weights: Tensor = scores.masked_fill(visible.blind.unsqueeze(1), 0.0).softmax(-1)
        weights = weights.masked_fill(visible.blind.unsqueeze(1), 0.0)
        return weights.to(q.dtype)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None = None, dropout: float = 0.0,
        soft_cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """See the base class."""
        weights = F.dropout(self.weights(q, k, visible, bias, soft_cap), dropout)
        y: Tensor = weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        return y


class SdpaKernel(Kernel):
    """PyTorch's fused kernel: flash attention where the hardware, the mask and the bias allow it.

    On a CPU without products in the type of ``q`` it works in float32 and rounds its result, which is no less accurate.
    """

    takes_soft_cap = False

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None = None, dropout: float = 0.0,
        soft_cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """See the base class."""
        if soft_cap is not None:
            raise SizeError("kernel", "SdpaKernel cannot cap scores; choose FlexKernel, BlockedKernel or EagerKernel")
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
        dtype = q.dtype
        if q.device.type == "cpu" and not multiplies(dtype):
            q, k, v = q.float(), k.float(), v.float()
            mask = mask.float() if mask is not None and mask.is_floating_point() else mask
        grouped = q.shape[1] != k.shape[1]
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, enable_gqa=grouped).to(dtype)
        return y if blind is None else y.masked_fill(blind, 0.0)


CACHED_SCORES = 2**19
"""Scores that one step of the blocked kernel works on: more are slower, as they leave the processor's cache."""


class BlockedKernel(Kernel):
    """Computes only the blocks of the score matrix that the mask leaves something of; made for the CPU.

    A sliding window, packed documents or a sparse pattern then cost time and memory by what they show, and the lower
    triangle costs half of the square.

    Args:
        block: Queries and keys of a block.
        keep_up_to: Longest row of keys whose attention weights are kept for backward; beyond, they are computed again
            and memory stays linear in the length.
    """

    takes_bias = False

    def __init__(self, block: int = 64, keep_up_to: int = 1024) -> None:
        super().__init__()
        if block < 1:
            raise SizeError("kernel.block", f"is {block}, must be at least 1")
        self.block = block
        self.keep_up_to = keep_up_to

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None = None, dropout: float = 0.0,
        soft_cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """See the base class."""
        if bias is not None:
            raise SizeError("kernel", "BlockedKernel cannot add a position's bias; choose SdpaKernel or EagerKernel")
        batch, heads, length, _ = q.shape
        keys = k.shape[-2]
        together = max(1, min(batch, CACHED_SCORES // (heads * min(self.block, length) * keys)))
        y: Tensor = BlockedAttention.apply(  # type: ignore[no-untyped-call]
            q, k, v, schedule(visible, batch, together, self.block), dropout, keys <= self.keep_up_to, soft_cap
        )
        return y


class FastestKernel(Kernel):
    """Whichever of ``SdpaKernel`` and ``BlockedKernel`` was measured to be faster for the case at hand.

    SDPA everywhere but in training on the CPU, in three cases: the mask is more than the lower triangle (packed
    documents, windows: blocks are skipped); 512 to 1,024 tokens (blocked takes 0.7 of the time); bfloat16 with matrix
    units up to 1,024 tokens, where SDPA's backward is its weak side. ``scripts/benchmark.py attention`` measures it.
    Capped scores, which SDPA cannot make, are the blocked kernel's on the CPU; with a bias, and on other devices, they
    are the eager one's: name ``FlexKernel`` there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sdpa = SdpaKernel()
        self.blocked = BlockedKernel()
        self.eager = EagerKernel()

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, visible: Visibility, bias: Bias | None = None, dropout: float = 0.0,
        soft_cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """See the base class."""
        kernel = self.choose(q, k, visible, bias, soft_cap)
        return kernel(q, k, v, visible, bias, dropout, soft_cap)  # type: ignore[no-any-return]

    def choose(
        self, q: Tensor, k: Tensor, visible: Visibility, bias: Bias | None = None, soft_cap: float | None = None
    ) -> Kernel:
        """The kernel for these queries and keys."""
        length, keys = q.shape[-2], k.shape[-2]
        if soft_cap is not None:
            plain = bias is None and q.device.type == "cpu" and type(q) is Tensor and not torch.compiler.is_compiling()
            return self.blocked if plain else self.eager
        if bias is not None or q.device.type != "cpu" or type(q) is not Tensor or torch.compiler.is_compiling():
            return self.sdpa
        if visible.seen is not None:
            return self.sdpa
        if not (visible.hides_nothing or visible.is_causal):
            return self.blocked if length > self.blocked.block else self.sdpa
        training = torch.is_grad_enabled() and q.requires_grad
        if not training or keys > self.blocked.keep_up_to:
            return self.sdpa
        if q.element_size() == 2 and multiplies(q.dtype):
            return self.blocked
        return self.blocked if keys >= 512 and visible.is_causal else self.sdpa
