"""Recompute (gradient checkpointing): memory of the forward pass against time in the backward pass.

Chen et al., 2016, arXiv:1604.06174. Values and gradients are those of a run without, dropout included.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lit_transformer.blocks import Stack
from lit_transformer.blocks.running import recomputing
from lit_transformer.dims import SizeError

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
"""What surrounds the forward pass of a layer, and what surrounds its repetition."""

ATEN = torch.ops.aten


def operators(*names: str) -> set[Any]:
    """Those of the operators that this torch has."""
    return {getattr(ATEN, name).default for name in names if hasattr(ATEN, name)}


PRODUCTS = operators("mm", "addmm", "_grouped_mm")
"""Products with weights, the last argument. Not ``bmm``: that makes the T x S scores, the last thing to keep."""

ATTENTION = operators(
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)


class Recompute(Callback):
    """Keeps only the input of every n-th layer, and runs the layer again when its gradient is due.

    Args:
        every: 1 for all layers, 2 for every second one, and so on.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise SizeError("every", f"is {every} in {type(self).__name__}, must be at least 1")
        self.every = every

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The network is built; names of parameters stay as they are."""
        recompute_layers(pl_module, self.every, self.contexts)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leaves the network as it was."""
        keep_layers(pl_module)

    @staticmethod
    def contexts() -> Contexts:
        """What surrounds a layer's forward pass and its repetition."""
        return nullcontext(), recomputing()


class SelectiveRecompute(Recompute):
    """Keeps the outputs of fused attention and of the products that widen too: most of the work, in few tensors.

    Run again are norms, rotations, gates, and the products that do not widen: as a block keeps little beside its
    products' outputs anyway, keeping all of them would save next to nothing (0.85 of the memory, measured).

    Args:
        every: 1 for all layers, 2 for every second one, and so on.
    """

    @staticmethod
    def contexts() -> Contexts:
        """What ``keep_matrix_products`` says is kept, everything else is not."""
        forward, again = create_selective_checkpoint_contexts(keep_matrix_products)
        return forward, both(recomputing(), again)


def keep_matrix_products(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Whether an operator's output is kept."""
    keep = op in ATTENTION or (op in PRODUCTS and widens(args[2] if op is ATEN.addmm.default else args[1]))
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def widens(weight: Tensor) -> bool:
    """Whether a product with this (..., inputs, outputs) has more outputs than inputs."""
    return weight.shape[-1] > weight.shape[-2]


@contextmanager
def both(*contexts: AbstractContextManager[Any]) -> Iterator[None]:
    """Several contexts as one."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def recompute_layers(
    network: nn.Module, every: int = 1, contexts: Callable[[], Contexts] = Recompute.contexts
) -> list[nn.Module]:
    """Makes every n-th layer of each stack in ``network`` a recomputed one, in place.

    Args:
        network: Anything that holds stacks.
        every: 1 for all layers, 2 for every second one, and so on.
        contexts: ``Recompute.contexts`` or ``SelectiveRecompute.contexts``.

    Returns:
        The layers that are recomputed from now on.
    """
    chosen = [
        layer
        for stack in network.modules()
        if isinstance(stack, Stack)
        for i, layer in enumerate(stack.layers)
        if i % every == 0
    ]
    for layer in chosen:
        # On the instance, so that neither the class nor a name in the state dict changes. A partial, because a copy of
        # the network (a moving average, say) must run its own layers, and copying a partial copies what it holds.
        layer.__dict__["forward"] = partial(recomputed, layer, contexts)
    return chosen


def keep_layers(network: nn.Module) -> None:
    """Undoes ``recompute_layers``."""
    for module in network.modules():
        forward = module.__dict__.get("forward")
        if isinstance(forward, partial) and forward.func is recomputed:
            del module.__dict__["forward"]


def recomputed(layer: nn.Module, contexts: Callable[[], Contexts], x: Any, context: Any, cache: Any = None) -> Any:
    """A layer's forward pass, of which the input alone is kept where gradients are wanted."""
    forward = partial(type(layer).forward, layer)
    if cache is not None or not torch.is_grad_enabled():
        return forward(x, context, cache)
    return checkpoint(forward, x, context, cache, use_reentrant=False, context_fn=contexts)
