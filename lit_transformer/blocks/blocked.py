"""Attention on the CPU, piece by piece: what a mask hides is not computed, and a piece fits the processor's cache."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_transformer.blocks.products import multiplies
from lit_transformer.blocks.schedule import Piece, Schedule


class BlockedAttention(torch.autograd.Function):
    """Scores, softmax and values of one piece after the other, and the five products of their gradient.

    Grouped queries of one key head are stacked, so that keys are never repeated and their gradients come out summed.
    In a type that the CPU has no products in, operands are multiplied in float32 and results rounded.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, schedule: Schedule, dropout: float, keep: bool,
        soft_cap: float | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, H, T, K) queries over (B, G, S, K) keys and values; ``keep`` says whether backward finds the weights."""
        seed = int(torch.randint(2**62, ())) if dropout else 0
        keep = keep and soft_cap is None  # the cap's slope is made with the scores
        work = _Work(q, k, v, dropout, seed, soft_cap)
        y = q.new_zeros(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
        kept: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):  # it would round the operands that float32 is chosen for
            for number, piece in enumerate(schedule):
                if not piece.keys:
                    continue
                p, _ = work.probabilities(piece)
                if keep:
                    kept.append(p)
                out = torch.bmm(work.dropped(p, number), work.gather(work.v, piece))
                y[piece.batch, :, piece.queries] = work.ungroup(out, piece)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.schedule, ctx.dropout, ctx.keep, ctx.seed, ctx.soft_cap = schedule, dropout, keep, seed, soft_cap
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        """Gradients of queries, keys and values."""
        q, k, v, *kept = ctx.saved_tensors
        work = _Work(q, k, v, ctx.dropout, ctx.seed, ctx.soft_cap)
        dy = dy.to(work.q.dtype)
        dq = torch.zeros_like(work.q)
        dk, dv = torch.zeros_like(work.k), torch.zeros_like(work.v)
        remaining = iter(kept)
        for number, piece in enumerate(ctx.schedule):
            if not piece.keys:
                continue
            p, slope = (next(remaining), None) if ctx.keep else work.probabilities(piece)
            dy_piece = work.group(dy, piece)
            work.scatter(dv, piece, work.dropped(p, number), dy_piece)
            dp = torch.bmm(dy_piece, work.gather(work.v, piece).mT)
            ds = torch._softmax_backward_data(work.dropped(dp, number), p, -1, p.dtype)
            if slope is not None:
                ds = ds.mul_(slope)
            dq_piece = torch.bmm(ds, work.gather(work.k, piece)).mul_(work.scale)
            dq[piece.batch, :, piece.queries] = work.ungroup(dq_piece, piece)
            work.scatter(dk, piece, ds, work.group(work.q, piece) * work.scale)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None, None


class _Work:
    """Queries, keys and values in the type that products are taken in, and the steps that both directions share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, dropout: float, seed: int, soft_cap: float | None) -> None:
        dtype = q.dtype if multiplies(q.dtype) else torch.float32
        self.q, self.k, self.v = (x.to(dtype).contiguous() for x in (q, k, v))
        self.scale = 1 / math.sqrt(q.shape[-1])
        self.groups = k.shape[1]
        self.keep, self.seed = 1 - dropout, seed
        self.soft_cap = soft_cap

    def group(self, x: Tensor, piece: Piece) -> Tensor:
        """(B, H, T, K) -> the piece's (b G, H/G t, K)."""
        part = x[piece.batch, :, piece.queries]
        return part.reshape(part.shape[0] * self.groups, -1, part.shape[-1])

    def ungroup(self, x: Tensor, piece: Piece) -> Tensor:
        """(b G, H/G t, K) -> (b, H, t, K)."""
        t = piece.queries.stop - piece.queries.start
        return x.view(piece.batch.stop - piece.batch.start, -1, t, x.shape[-1])

    def gather(self, x: Tensor, piece: Piece) -> Tensor:
        """(B, G, S, K) -> the keys of the piece, (b G, s, K)."""
        runs = [x[piece.batch, :, run] for run in piece.keys]
        return (runs[0] if len(runs) == 1 else torch.cat(runs, dim=2)).flatten(0, 1)

    def scatter(self, total: Tensor, piece: Piece, weights: Tensor, rows: Tensor) -> None:
        """Adds ``weights.mT @ rows`` to the piece's keys in ``total`` (B, G, S, K)."""
        start = 0
        for run in piece.keys:
            length = run.stop - run.start
            part = total[piece.batch, :, run].flatten(0, 1)  # a view: batch and groups are neighbours in memory
            part.baddbmm_(weights[:, :, start : start + length].mT, rows)
            start += length

    def probabilities(self, piece: Piece) -> tuple[Tensor, Tensor | None]:
        """(b G, H/G t, s): softmax over the visible keys; zeros for a query that sees nothing. And the cap's slope."""
        scores, slope = torch.bmm(self.group(self.q, piece) * self.scale, self.gather(self.k, piece).mT), None
        if self.soft_cap is not None:
            share = scores.div_(self.soft_cap).tanh_()
            slope = 1 - share * share
            scores = share.mul_(self.soft_cap)
        if piece.hidden is not None:
            at = slice(piece.offset, piece.offset + piece.hidden.shape[-1])
            self.ungroup(scores, piece)[..., at].masked_fill_(piece.hidden.unsqueeze(1), -math.inf)
        p = torch.softmax(scores, -1)
        if piece.blind is not None:
            self.ungroup(p, piece).masked_fill_(piece.blind[:, None, :, None], 0.0)
        return p, slope

    def dropped(self, p: Tensor, number: int) -> Tensor:
        """``p`` after dropout; the same places fall out whenever it is called for the same piece."""
        if self.keep == 1:
            return p
        generator = torch.Generator().manual_seed(self.seed + number)
        return torch.empty_like(p).bernoulli_(self.keep, generator=generator).mul_(p).div_(self.keep)
