"""Mixture of experts: many feed-forwards, of which each token meets a few."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.experts import Experts, GroupedLinear
from lit_transformer.blocks.feed_forward import FeedForward, SwiGLU
from lit_transformer.blocks.routing import Balance, LoadBalancingLoss, Router, Routing, SoftmaxRouter
from lit_transformer.dims import Dims, SizeError


class Dispatch:
    """Base of the ways to bring tokens to their experts and back."""

    def __call__(
        self, x: Float[Tensor, "N D"], routing: Routing, experts: Experts, context: Context
    ) -> tuple[Float[Tensor, "N D"], dict[str, Tensor]]:
        """Weighted sum of the chosen experts' outputs, and statistics."""
        raise NotImplementedError


class Dropless(Dispatch):
    """Every token is served: rows are sorted by expert and met in grouped products.

    MegaBlocks: Gale et al., 2022, arXiv:2211.15841.
    """

    def __call__(
        self, x: Tensor, routing: Routing, experts: Experts, context: Context
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class."""
        n_experts, k = routing.scores.shape[-1], routing.chosen.shape[-1]
        expert = routing.chosen.flatten()
        order = expert.argsort(stable=True)
        rows = torch.zeros(n_experts, dtype=torch.int32, device=x.device)
        rows.scatter_add_(0, expert, torch.ones_like(expert, dtype=torch.int32))
        y = experts(x[order // k], rows.cumsum(0, dtype=torch.int32), context)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
        return combine(y[back].view(-1, k, y.shape[-1]), routing.weights), {}


class Capacity(Dispatch):
    """In training each expert serves a fixed number of tokens, first choices first; the rest pass by (GShard, Switch).

    All shapes are known beforehand. In evaluation nobody is turned away: what a token gets must not depend on others.

    Args:
        factor: Room of an expert over its fair share.
    """

    def __init__(self, factor: float = 1.25) -> None:
        if factor <= 0:
            raise SizeError("feed_forward.dispatch.factor", f"is {factor}, must be above 0 (1 is the fair share)")
        self.factor = factor

    def __call__(
        self, x: Tensor, routing: Routing, experts: Experts, context: Context
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See the base class."""
        if not experts.training:
            return Dropless()(x, routing, experts, context)
        (n, k), n_experts = routing.chosen.shape, routing.scores.shape[-1]
        room = min(n, math.ceil(self.factor * n * k / n_experts))
        expert = routing.chosen.T.flatten()
        real = (routing.real > 0).repeat(k)
        taken = nn.functional.one_hot(expert, n_experts) * real.unsqueeze(-1)
        place = (taken.cumsum(0) - 1).gather(-1, expert.unsqueeze(-1)).squeeze(-1)
        served = real & (place < room)
        slot = torch.where(served, expert * room + place, n_experts * room)
        token = torch.arange(n, device=x.device).repeat(k)
        source = torch.full((n_experts * room + 1,), n, device=x.device).scatter_(0, slot, token)[:-1]
        y = experts(with_zero_row(x)[source], None, context)
        y = with_zero_row(y)[slot].view(k, n, -1).transpose(0, 1)
        dropped = 1 - served.sum() / real.sum().clamp(min=1)
        return combine(y, routing.weights), {"dropped": dropped}


def with_zero_row(x: Float[Tensor, "N D"]) -> Float[Tensor, "N+1 D"]:
    """What an index past the end looks up."""
    return torch.cat((x, x.new_zeros(1, x.shape[-1])))


def combine(y: Float[Tensor, "N k D"], weights: Float[Tensor, "N k"]) -> Float[Tensor, "N D"]:
    """Weighted sum over the chosen experts, added up in the weights' type."""
    total: Tensor = (y * weights.unsqueeze(-1)).sum(1)
    return total.to(y.dtype)


class MixtureOfExperts(FeedForward):
    """E experts, of which every token meets the k that its router chooses (Shazeer et al., 2017, arXiv:1701.06538).

    Reports its balance losses, and as statistics ``expert_load`` (each expert's share of the choices) and, with a
    ``Capacity``, ``dropped`` (share of the choices that were turned away).

    Args:
        dims: Sizes.
        n_experts: Number E of experts.
        top_k: Number k of experts a token.
        expert: Makes one expert: any feed-forward made of products and activations.
        d_expert: Hidden width of one expert; left out: ``d_ff``.
        n_shared: Number of further experts that every token meets (DeepSeek: Dai et al., 2024, arXiv:2401.06066).
        router: Makes the router.
        balance: Make what keeps experts equally busy; left out: LoadBalancingLoss; empty: nothing.
        dispatch: Capacity or Dropless; left out: Dropless.
    """

    def __init__(
        self,
        dims: Dims,
        n_experts: int = 8,
        top_k: int = 2,
        expert: Callable[[Dims], FeedForward] = SwiGLU,
        d_expert: int | None = None,
        n_shared: int = 0,
        router: Callable[[Dims, int, int], Router] = SoftmaxRouter,
        balance: list[Callable[[int], Balance]] | None = None,
        dispatch: Dispatch | None = None,
    ) -> None:
        super().__init__(dims)
        if n_shared < 0:
            raise SizeError("feed_forward.n_shared", f"is {n_shared}, must be at least 0")
        if d_expert is not None and d_expert < 1:
            raise SizeError("feed_forward.d_expert", f"is {d_expert}, must be at least 1")
        self.router = router(dims, n_experts, top_k)
        sizes = dims if d_expert is None else replace(dims, d_ff=d_expert)
        self.experts = Experts(sizes, n_experts, expert)
        for module in self.experts.modules():
            if isinstance(module, GroupedLinear):
                module.active_share = top_k / n_experts
        self.shared = nn.ModuleList(expert(sizes) for _ in range(n_shared))
        self.balance = nn.ModuleList(b(n_experts) for b in ([LoadBalancingLoss] if balance is None else balance))
        self.dispatch = dispatch or Dropless()

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Auxiliary]:
        """See the base class."""
        real = context.real
        flat = x.flatten(0, -2)
        routing = self.router(flat, None if real is None else real.expand(x.shape[:-1]).flatten(), self.balance)
        y, stats = self.dispatch(flat, routing, self.experts, context)
        y = y.view_as(x)
        for expert in self.shared:
            y = y + expert(x, context)[0]
        losses = {name: loss for part in self.balance for name, loss in part(routing).items()}
        load = routing.load()
        stats["expert_load"] = load / load.sum().clamp(min=1)
        return y, Auxiliary(losses, {name: value.detach() for name, value in stats.items()})
