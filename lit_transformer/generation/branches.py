"""Several continuations of each prompt, which fork and end as a search goes on."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.cache import Lineage
from lit_transformer.blocks.gated_attention import GatedAttention
from lit_transformer.blocks.kernels import EagerKernel, FastestKernel, SdpaKernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.stack import Stack
from lit_transformer.generation.form import JointAttention
from lit_transformer.generation.runner import Runner


class Branches:
    """Base of the ways to hold N continuations of each of B prompts, and itself the plain one: a row for each.

    A fork copies the row's cache, prompt and all. It works for every network.

    Args:
        runner: Feeds the network.
        count: Continuations of each prompt, N.
    """

    def __init__(self, runner: Runner, count: int) -> None:
        self.runner = runner
        self.count = count

    def begin(self, rows: Sequence[Sequence[int]], width: int, steps: int) -> Float[Tensor, "BN V"]:
        """Starts all continuations of each prompt alike; returns the scores of what comes next.

        Args:
            rows: The prompts.
            width: Places of the cache that the longest of them takes.
            steps: Most new tokens.
        """
        logits = self.runner.prefill(rows, width + steps - 1)
        first = torch.arange(len(rows), device=logits.device).repeat_interleave(self.count)
        self.runner.reorder(first)
        return logits[first]

    def step(self, parents: Int[Tensor, "B N"], tokens: Int[Tensor, "B N"]) -> Float[Tensor, "BN V"]:
        """Each continuation grows from one of the present ones of its prompt, by one token; returns the next scores."""
        offsets = torch.arange(len(parents), device=parents.device).unsqueeze(1) * self.count
        self.runner.reorder((offsets + parents).flatten())
        return self.runner.step(tokens.flatten())


class SharedBranches(Branches):
    """All continuations of a prompt in one row: each token sees those that it descends from.

    The prompt's keys and values (and those of an encoder's states) are held and read once, and nothing is copied.

    Args:
        runner: Feeds the network.
        count: Continuations of each prompt.
    """

    def begin(self, rows: Sequence[Sequence[int]], width: int, steps: int) -> Float[Tensor, "BN V"]:
        """See the base class."""
        capacity = width + (steps - 1) * self.count
        logits = self.runner.prefill(rows, capacity)
        place = torch.arange(capacity, device=logits.device)
        index = torch.where(place < width, place, width + (place - width) // self.count).unsqueeze(0)
        seen = (place < width).expand(len(rows), self.count, -1)
        assert self.runner.cache is not None
        self.runner.cache = replace(self.runner.cache, lineage=Lineage(index, seen))
        return logits.repeat_interleave(self.count, 0)

    def step(self, parents: Int[Tensor, "B N"], tokens: Int[Tensor, "B N"]) -> Float[Tensor, "BN V"]:
        """See the base class."""
        cache = self.runner.cache
        assert cache is not None and cache.lineage is not None
        seen = cache.lineage.seen
        seen = seen.gather(1, parents.unsqueeze(-1).expand(-1, -1, seen.shape[-1]))
        own = torch.arange(self.count, device=seen.device)
        seen[:, own, cache.length + own] = True
        self.runner.cache = replace(cache, lineage=Lineage(cache.lineage.index, seen))
        return self.runner.fork(tokens).flatten(0, 1)


def branches_of(runner: Runner, count: int) -> Branches:
    """Shared ones, where every attention keeps its keys by place and reads a mask; else a row for each."""
    return SharedBranches(runner, count) if count > 1 and _can_share(runner.network) else Branches(runner, count)


def _can_share(network: nn.Module) -> bool:
    stacks = [each for each in network.modules() if isinstance(each, Stack)]
    layers = [layer for stack in stacks for layer in stack.layers if isinstance(layer, Layer)]
    return bool(stacks) and (
        all(isinstance(stack.kernel, FastestKernel | SdpaKernel | EagerKernel) for stack in stacks)
        and all(
            _keeps_places(layer.attention) and getattr(layer.attention, "soft_cap", None) is None for layer in layers
        )
        and not any(stack.position.needs_keys for stack in stacks)
        and not any(layer.own_position is not None and layer.own_position.needs_keys for layer in layers)
    )


def _keeps_places(attention: nn.Module) -> bool:
    kinds = (Attention, GatedAttention, JointAttention)
    return any(type(attention) is kind or type(attention).__bases__[0] is kind for kind in kinds)
