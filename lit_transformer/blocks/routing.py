"""Which experts a token goes to, and what keeps the experts equally busy."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.running import RunningState, is_recomputing
from lit_transformer.dims import Dims, SizeError


class Routing(NamedTuple):
    """What a router decided for N tokens, in float32.

    Args:
        logits: (N, E), before any squashing.
        scores: (N, E), how well token and expert fit.
        chosen: (N, k) indices of experts, best first.
        weights: (N, k), what the chosen experts' outputs are multiplied with.
        real: (N,) 1 for tokens and 0 for padding, which counts nowhere.
    """

    logits: Tensor
    scores: Tensor
    chosen: Tensor
    weights: Tensor
    real: Tensor

    def load(self) -> Float[Tensor, " E"]:
        """How many tokens each expert was chosen by."""
        ones = self.real.unsqueeze(-1).expand_as(self.chosen).flatten()
        return self.real.new_zeros(self.scores.shape[-1]).scatter_add_(0, self.chosen.flatten(), ones)

    def mean(self, x: Tensor) -> Tensor:
        """Mean of (N, ...) over the real tokens."""
        return (x * self.real.view(-1, *[1] * (x.ndim - 1))).sum(0) / self.real.sum().clamp(min=1)


class Router(nn.Module):
    """Base of the routers: a product with one vector an expert, in float32 also under autocast, then the k best.

    Args:
        dims: Sizes.
        n_experts: Number E of experts.
        top_k: Number k of experts a token.
    """

    def __init__(self, dims: Dims, n_experts: int, top_k: int) -> None:
        super().__init__()
        if n_experts < 1:
            raise SizeError("feed_forward.n_experts", f"is {n_experts}, must be at least 1")
        if not 1 <= top_k <= n_experts:
            raise SizeError("feed_forward.top_k", f"{top_k} of {n_experts} experts; valid: 1 to {n_experts}")
        self.top_k = top_k
        self.weight = nn.Parameter(torch.empty(n_experts, dims.d_model))

    def forward(self, x: Float[Tensor, "N D"], real: Tensor | None, balance: Iterable["Balance"] = ()) -> Routing:
        """Chooses; ``balance`` may shift the scores that the choice is made by, not the weights."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(dtype), self.weight.to(dtype))
            scores = self.scores(logits)
            shifted = scores.detach()
            for part in balance:
                shifted = part.shift(shifted)
            chosen = self.eligible(shifted).topk(self.top_k, dim=-1).indices
            weights = self.weigh(scores.gather(-1, chosen))
        counted = x.new_ones(x.shape[0], dtype=dtype) if real is None else real.to(dtype)
        return Routing(logits, scores, chosen, weights, counted)

    def scores(self, logits: Tensor) -> Tensor:
        """Logits (N, E) as scores between 0 and 1."""
        return logits.softmax(-1)

    def eligible(self, scores: Tensor) -> Tensor:
        """The scores (N, E), -inf where an expert must not be chosen."""
        return scores

    def weigh(self, scores: Tensor) -> Tensor:
        """The chosen scores (N, k) as weights."""
        raise NotImplementedError


class SoftmaxRouter(Router):
    """Softmax over the chosen experts' logits (Mixtral: Jiang et al., 2024, arXiv:2401.04088).

    Raises:
        SizeError: ``top_k`` is 1: the only weight is 1 whatever the router says, and it would learn nothing.
    """

    def __init__(self, dims: Dims, n_experts: int, top_k: int) -> None:
        super().__init__(dims, n_experts, top_k)
        if top_k == 1:
            raise SizeError("feed_forward.top_k", "is 1, and SoftmaxRouter's weights add up to 1: it would learn "
                            f"nothing; valid: 2 to {n_experts}, or router SwitchRouter")  # fmt: skip

    def weigh(self, scores: Tensor) -> Tensor:
        """They add up to one."""
        return scores / scores.sum(-1, keepdim=True)


class SwitchRouter(Router):
    """Softmax over all experts, of which the chosen ones keep their share (Fedus et al., 2021, arXiv:2101.03961).

    The router of Switch and DeepSeek-V2.

    Args:
        dims: Sizes.
        n_experts: Number E of experts.
        top_k: Number k of experts a token.
        scale: Factor of the weights.
    """

    def __init__(self, dims: Dims, n_experts: int, top_k: int, scale: float = 1.0) -> None:
        super().__init__(dims, n_experts, top_k)
        self.scale = scale

    def weigh(self, scores: Tensor) -> Tensor:
        """As they are, times the scale."""
        return scores * self.scale


class GroupedSwitchRouter(SwitchRouter):
    """SwitchRouter whose tokens only go to the groups with the best expert (DeepSeek-V2: arXiv:2405.04434).

    Args:
        dims: Sizes.
        n_experts: Number E of experts.
        top_k: Number k of experts a token.
        scale: Factor of the weights.
        groups: Experts stand in this many groups of the same size (one a machine, say).
        top_groups: Number of groups that a token goes to.
    """

    def __init__(
        self, dims: Dims, n_experts: int, top_k: int, scale: float = 1.0, groups: int = 1, top_groups: int = 1
    ) -> None:
        super().__init__(dims, n_experts, top_k, scale)
        check_groups(n_experts, top_k, groups, top_groups)
        self.groups, self.top_groups = groups, top_groups

    def eligible(self, scores: Tensor) -> Tensor:
        """Experts of the best groups."""
        return within_best_groups(scores, self.groups, self.top_groups, judges=1)


def check_groups(n_experts: int, top_k: int, groups: int, top_groups: int) -> None:
    """Refuses groups that experts or choices do not fit into.

    Raises:
        SizeError: Naming the key and what is valid.
    """
    if groups < 1 or n_experts % groups:
        valid = [n for n in range(1, n_experts + 1) if n_experts % n == 0]
        raise SizeError("feed_forward.router.groups", f"{groups} does not divide {n_experts} experts; "
                        f"valid: {', '.join(map(str, valid))}")  # fmt: skip
    if not 1 <= top_groups <= groups or top_groups * (n_experts // groups) < top_k:
        least = -(-top_k * groups // n_experts)
        raise SizeError("feed_forward.router.top_groups", f"{top_groups} of {groups} groups of "
                        f"{n_experts // groups} for top_k {top_k}; valid: {least} to {groups}")  # fmt: skip


def within_best_groups(scores: Float[Tensor, "N E"], groups: int, top_groups: int, judges: int) -> Float[Tensor, "N E"]:
    """The scores, -inf outside of the groups whose ``judges`` best experts score best together."""
    if groups == top_groups:
        return scores
    grouped = scores.view(-1, groups, scores.shape[-1] // groups)
    best = grouped.topk(min(judges, grouped.shape[-1]), dim=-1).values.sum(-1).topk(top_groups, dim=-1).indices
    outside = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter_(-1, best, False)
    return grouped.masked_fill(outside.unsqueeze(-1), -torch.inf).flatten(-2)


class SigmoidRouter(Router):
    """Each expert is scored by itself; weights are the chosen scores' shares (DeepSeek-V3, 2024, arXiv:2412.19437).

    Args:
        dims: Sizes.
        n_experts: Number E of experts.
        top_k: Number k of experts a token.
        scale: Factor of the weights.
        groups: Experts stand in this many groups of the same size (one a machine, say).
        top_groups: A token only goes to the groups whose two best experts score best.
    """

    def __init__(
        self, dims: Dims, n_experts: int, top_k: int, scale: float = 1.0, groups: int = 1, top_groups: int = 1
    ) -> None:
        super().__init__(dims, n_experts, top_k)
        check_groups(n_experts, top_k, groups, top_groups)
        self.scale, self.groups, self.top_groups = scale, groups, top_groups

    def scores(self, logits: Tensor) -> Tensor:
        """Sigmoid."""
        return logits.sigmoid()

    def eligible(self, scores: Tensor) -> Tensor:
        """Experts of the best groups."""
        return within_best_groups(scores, self.groups, self.top_groups, judges=2)

    def weigh(self, scores: Tensor) -> Tensor:
        """They add up to the scale."""
        return scores / (scores.sum(-1, keepdim=True) + 1e-20) * self.scale


class Balance(nn.Module):
    """Base of what keeps experts equally busy: by a loss, or by shifting the choice.

    Args:
        n_experts: Number E of experts.
    """

    def __init__(self, n_experts: int) -> None:
        super().__init__()
        self.n_experts = n_experts

    def shift(self, scores: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """The scores that the choice is made by."""
        return scores

    def forward(self, routing: Routing) -> dict[str, Tensor]:
        """Weighted losses by name."""
        return {}


class LoadBalancingLoss(Balance):
    """E times the sum over experts of share of tokens x mean score, least where all are equal (Fedus et al., 2021).

    Its least value is ``weight * top_k``, as in Mixtral.

    Args:
        n_experts: Number E of experts.
        weight: Factor of the loss.
    """

    def __init__(self, n_experts: int, weight: float = 0.01) -> None:
        super().__init__(n_experts)
        self.weight = weight

    def forward(self, routing: Routing) -> dict[str, Tensor]:
        """``load_balancing``."""
        share = routing.load() / routing.real.sum().clamp(min=1)
        score = routing.mean(routing.scores / routing.scores.sum(-1, keepdim=True))
        return {"load_balancing": self.weight * self.n_experts * (share * score).sum()}


class RouterZLoss(Balance):
    """Mean of squared log-sum-exp of the logits: keeps them small and the softmax exact.

    ST-MoE: Zoph et al., 2022, arXiv:2202.08906.

    Args:
        n_experts: Number E of experts.
        weight: Factor of the loss.
    """

    def __init__(self, n_experts: int, weight: float = 0.001) -> None:
        super().__init__(n_experts)
        self.weight = weight

    def forward(self, routing: Routing) -> dict[str, Tensor]:
        """``router_z``."""
        return {"router_z": self.weight * routing.mean(routing.logits.logsumexp(-1).square())}


class BiasBalancing(Balance, RunningState):
    """No loss: a bias that is added for the choice rises for idle experts and falls for busy ones.

    Wang et al., 2024, arXiv:2408.15664; DeepSeek-V3. Training passes count; ``update`` moves the bias once an optimizer
    step (the task's callback calls it), so it is the same in all
    micro-batches of a step, and in a pass and its repetition for the backward pass.

    Args:
        n_experts: Number E of experts.
        rate: How far the bias moves in one step.
    """

    bias: Tensor
    counts: Tensor

    def __init__(self, n_experts: int, rate: float = 0.001) -> None:
        super().__init__(n_experts)
        self.rate = rate
        self.register_buffer("bias", torch.zeros(n_experts, dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(n_experts, dtype=torch.int64), persistent=False)

    def shift(self, scores: Tensor) -> Tensor:
        """Scores plus bias."""
        return scores + self.bias.to(scores.dtype)

    def forward(self, routing: Routing) -> dict[str, Tensor]:
        """No loss; counts."""
        if self.training and torch.is_grad_enabled() and not is_recomputing():
            with torch.no_grad():
                self.counts += routing.load().long()
        return {}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the bias by what was counted since the last call, on all processes together."""
        counts = self.counts
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        self.bias += self.rate * torch.sign(counts.sum() - counts * self.n_experts)
        self.counts.zero_()

    def initialise_buffers(self) -> None:
        """No bias, nothing counted."""
        self.bias.zero_()
        self.counts.zero_()


def update_balance(network: nn.Module) -> None:
    """Moves the biases of all ``BiasBalancing`` in a network; to be called once before each optimizer step."""
    for module in network.modules():
        if isinstance(module, BiasBalancing):
            module.update()
