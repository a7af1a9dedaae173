"""What a training step holds on each device, and how strategies share it out."""

from dataclasses import dataclass, replace

from torch import nn

from lit_transformer.blocks import Stack
from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.moe import MixtureOfExperts
from lit_transformer.training.layout import Layout


@dataclass(frozen=True)
class Memory:
    """Bytes on each device, where the most of them are in use.

    Args:
        weights: Parameters and buffers.
        gradients: Of the parameters that are trained.
        optimizer: Its state.
        average: Averaged weights.
        copies: What the strategy holds beside: buckets that gradients travel in, weights gathered for use.
        logits: Scores of the vocabulary that are held at once.
        activations: What the forward pass leaves for backward, and what is in work at the peak.
        host: What lies in the memory of the host instead, for each device; not part of the total.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    copies: int = 0
    logits: int = 0
    activations: int = 0
    host: int = 0

    @property
    def total(self) -> int:
        """All that is on the device."""
        everything: int = sum(vars(self).values())
        return everything - self.host


BUCKET = 4 * 50_000_000
"""Bytes of the gradients that ZeRO sends at once."""


def spread_memory(alone: Memory, task: nn.Module, layout: Layout, tokens: int = 0) -> Memory:
    """What each device of a layout takes, from what one device alone takes with the rows that one group sees.

    DDP keeps gradients a second time, in the buckets that they travel in. ZeRO-1 and -2 keep a share of the optimizer's
    state and of a float32 copy of the weights, FSDP2 and ZeRO-3 a share of weights, gradients and optimizer state;
    these gather what is outside of the layers for the whole step, and two layers at a time, with the gradients of one;
    experts that lie on different devices are not gathered. Offloading moves shares to the host. Tensor parallelism
    shares out products, embedding and head, and the activations; context parallelism the activations, but for the keys
    and values of whole rows.

    Args:
        alone: Of one device.
        task: What is trained.
        layout: How it is spread.
        tokens: Places for tokens in a batch of one device alone.
    """
    total = sum(p.numel() for p in task.parameters())
    memory = alone
    if layout.tensor > 1:
        kept = sum(p.numel() for p in task.parameters() if p.ndim < 2)
        share = (kept + (total - kept) / layout.tensor) / total
        memory = replace(
            memory,
            weights=int(memory.weights * share),
            gradients=int(memory.gradients * share),
            optimizer=int(memory.optimizer * share),
            average=int(memory.average * share),
            logits=memory.logits // layout.tensor,
            activations=memory.activations // layout.tensor,
        )
    size = alone.weights / max(1, total)
    if layout.context > 1:
        others = 1 - 1 / layout.context
        gathered = sum(2 * m.dims.kv_heads * m.dims.head_size for m in task.modules() if isinstance(m, Attention))
        memory = replace(
            memory,
            logits=memory.logits // layout.context,
            activations=memory.activations // layout.context + int(gathered * tokens * size * others),
        )
    masters = total * 4 // layout.devices if layout.masters else 0
    shares = layout.shares
    if shares > 1 and layout.stage == 3:
        memory = replace(
            memory,
            weights=memory.weights // shares,
            gradients=memory.gradients // shares,
            optimizer=memory.optimizer // shares,
            average=memory.average // shares,
            copies=int(size / layout.tensor * _gathered(task, layout)) + masters,
        )
    elif shares > 1 and layout.stage:
        memory = replace(
            memory,
            gradients=memory.gradients if layout.stage == 1 else memory.gradients // shares,
            optimizer=memory.optimizer // shares,
            copies=masters + min(memory.gradients, BUCKET),
        )
    elif shares > 1:
        memory = replace(memory, copies=memory.gradients)
    elif layout.masters:
        memory = replace(memory, copies=masters)
    return _offloaded(memory, layout, masters)


def _gathered(task: nn.Module, layout: Layout) -> int:
    """Numbers that stage 3 holds whole at a time: what is outside of the layers twice, and three layers."""
    apart = {
        id(p)
        for module in task.modules()
        if layout.experts > 1 and isinstance(module, MixtureOfExperts)
        for p in module.experts.parameters()
    }
    layers = [layer for module in task.modules() if isinstance(module, Stack) for layer in module.layers]
    sizes = [sum(p.numel() for p in layer.parameters() if id(p) not in apart) for layer in layers]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    root = sum(p.numel() for p in task.parameters() if id(p) not in inside)
    return 2 * root + 3 * max(sizes, default=0)


def _offloaded(memory: Memory, layout: Layout, masters: int) -> Memory:
    """Optimizer state, the copies that it steps on and their gradients on the host; with ``all`` the weights too."""
    if layout.offload == "nothing":
        return memory
    gradients = 0 if layout.stage == 1 else memory.gradients
    weights = memory.weights if layout.offload == "all" else 0
    return replace(
        memory,
        weights=memory.weights - weights,
        gradients=memory.gradients - gradients,
        optimizer=0,
        copies=memory.copies - masters,
        host=memory.optimizer + masters + gradients + weights,
    )


def checkpoint_bytes(alone: Memory) -> int:
    """Size of a checkpoint file: whole weights, the optimizer's state, averages; the rest is small."""
    return alone.weights + alone.optimizer + alone.average
