"""From hidden states and target tokens to the negative log-likelihood."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor, Partial

from lit_transformer.blocks.embedding import Head
from lit_transformer.blocks.products import multiplies, product_type
from lit_transformer.dims import SizeError

IGNORED = -100
"""The target of places that predict nothing."""

CACHED_LOGITS = 2**19
"""Logits that softmax works on at a time: more of them leave the processor's cache between its steps."""


WORTHWHILE = 2048
"""Smallest vocabulary whose logits are so many that the fused loss was measured to be faster than PyTorch's."""


class TokenLoss(nn.Module):
    """Base of the losses: the *sum* of the losses of all target tokens; who divides by what is the task's business."""

    def forward(self, hidden: Float[Tensor, "B T D"], head: Head, targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        """Sum over the targets that are not ``IGNORED``, in float32 at least."""
        raise NotImplementedError


class CrossEntropy(TokenLoss):
    """Negative log-likelihood in nats, from all logits at once: the specification of the faster ones.

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
        logits = logits.flatten(0, -2).float() if logits.element_size() < 4 else logits.flatten(0, -2)
        targets = targets.flatten()
        if isinstance(logits, DTensor):
            return _shared_out(logits, targets, self.label_smoothing)
        return F.cross_entropy(
            logits, targets, ignore_index=IGNORED, reduction="sum", label_smoothing=self.label_smoothing
        )


def _shared_out(logits: DTensor, targets: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of (N, V) logits of which each device of a one-dimensional mesh has a part of the vocabulary.

    ``loss_parallel`` knows no smoothing, which adds to it, times its share: the target's logit minus the mean of all.
    """
    total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    assert isinstance(total, DTensor)
    whole: Tensor = total.full_tensor()
    if not smoothing:
        return whole
    mesh, size = logits.device_mesh, logits.shape[-1]
    mine = logits.to_local()
    keep = targets != IGNORED
    place = targets - -(-size // mesh.size()) * mesh.get_local_rank()  # the last device may have fewer, or none
    here = keep & (place >= 0) & (place < mine.shape[-1])
    chosen = mine[here, place[here]].sum() - (mine.sum(-1) * keep).sum() / size
    added: Tensor = DTensor.from_local(chosen, mesh, [Partial()], run_check=False).full_tensor()
    return whole + smoothing * added


class ChunkedCrossEntropy(CrossEntropy):
    """The same number and gradient, on the CPU, with one matrix of logits where the plain one holds four.

    Logits turn into their gradient in place, a few rows at a time while they are in the processor's cache. Beyond
    ``chunk`` tokens even that matrix is never whole. Elsewhere (small vocabularies, other devices, float16, heads that
    are more than a product, under a compiler) it is ``CrossEntropy``.

    Args:
        label_smoothing: Share of the target's probability that is spread over the whole vocabulary
            (Szegedy et al., 2016, arXiv:1512.00567).
        chunk: Most tokens whose logits are held at a time.
    """

    def __init__(self, label_smoothing: float = 0.0, chunk: int = 512) -> None:
        super().__init__(label_smoothing)
        if chunk < 1:
            raise SizeError("loss.chunk", f"is {chunk}, must be at least 1")
        self.chunk = chunk

    def forward(self, hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
        """See the base class."""
        dtype = product_type(hidden)
        product_alone = type(head).forward is Head.forward and not head._forward_hooks and not head._forward_pre_hooks
        simple = hidden.device.type == "cpu" and dtype != torch.float16 and not torch.compiler.is_compiling()
        simple = simple and type(head.weight) in (Tensor, nn.Parameter) and head.weight.shape[0] >= WORTHWHILE
        if not (simple and product_alone):
            return super().forward(hidden, head, targets)
        loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden.flatten(0, -2), head.weight, targets.flatten(), dtype, self.chunk, self.label_smoothing
        )
        return loss


class _CrossEntropy(torch.autograd.Function):
    """Head and cross-entropy in one, with gradients of hidden states and weights only."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int, smoothing: float
    ) -> Tensor:
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.spent = False
        with torch.autocast("cpu", enabled=False):
            x, w = (each.to(dtype) if multiplies(dtype) else each.to(dtype).float() for each in (hidden, weight))
            total = torch.zeros((), dtype=torch.promote_types(dtype, torch.float32))
            wanted = any(ctx.needs_input_grad[:2])
            ctx.whole = x.shape[0] <= chunk and x.dtype == dtype
            if wanted and ctx.whole:
                logits = torch.mm(x, w.t())
                total += _softmax_gradient_(logits, targets, smoothing, wanted)
                ctx.save_for_backward(x, w, logits)
                return total
            dx, dw = torch.empty_like(x), torch.zeros_like(w) if wanted else None
            for start in range(0, x.shape[0], chunk):
                rows = slice(start, start + chunk)
                logits = torch.mm(x[rows], w.t())
                total += _softmax_gradient_(logits, targets[rows], smoothing, wanted)
                if dw is not None:
                    torch.mm(logits, w, out=dx[rows])
                    dw.addmm_(logits.t(), x[rows])
                del logits
            if wanted:
                ctx.save_for_backward(dx, dw)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        hidden_dtype, weight_dtype = ctx.dtypes
        if ctx.whole:
            x, w, d = ctx.saved_tensors
            exact = x.element_size() >= 4  # the scale goes into the small factor where that does not round it
            dx, dw = torch.mm(d, w).to(hidden_dtype) * g, torch.mm(d.t(), x * g if exact else x).to(weight_dtype)
            return dx.to(hidden_dtype), dw if exact else dw.mul_(g), None, None, None, None
        if ctx.spent:
            raise RuntimeError("ChunkedCrossEntropy can go backward once; use CrossEntropy to retain the graph")
        ctx.spent = True
        dx, dw = ctx.saved_tensors
        return (dx.to(hidden_dtype) * g).to(hidden_dtype), dw.to(weight_dtype).mul_(g), None, None, None, None


def _softmax_gradient_(logits: Tensor, targets: Tensor, smoothing: float, wanted: bool) -> Tensor:
    """Sum of the losses of (N, V) logits, which become the gradient of that sum where it is ``wanted``."""
    size = logits.shape[-1]
    step = max(1, CACHED_LOGITS // size)
    keep = targets != IGNORED
    target = targets.masked_fill(~keep, 0).unsqueeze(-1)
    all_kept = bool(keep.all())
    total = torch.zeros((), dtype=torch.promote_types(logits.dtype, torch.float32))
    for start in range(0, logits.shape[0], step):
        rows = slice(start, start + step)
        part = logits[rows]
        p = torch.log_softmax(part, -1, dtype=total.dtype)
        loss = p.gather(-1, target[rows]).squeeze(-1).mul_(-(1 - smoothing))
        if smoothing:
            loss -= p.mean(-1) * smoothing
        total += (loss if all_kept else loss * keep[rows]).sum()
        if wanted:
            p.exp_()
            p.scatter_add_(-1, target[rows], p.new_full((1, 1), smoothing - 1).expand(p.shape[0], 1))
            if smoothing:
                p -= smoothing / size
            part.copy_(p if all_kept else p.mul_(keep[rows].unsqueeze(-1)))
    return total
