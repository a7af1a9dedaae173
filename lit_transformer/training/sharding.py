"""Plans that spread a network over devices: FSDP2, tensor parallelism, or both on one mesh.

A plan is applied to a network on the meta device, before any weight exists; ``materialise`` then draws each weight in
full from (seed, its name), one at a time, and keeps this rank's part: the same start as in a single process.
"""

from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    parallelize_module,
)

from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.embedding import Embedding, Head, LinearHead, TiedHead
from lit_transformer.blocks.feed_forward import MLP, Gated
from lit_transformer.blocks.gated_attention import GatedAttention
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.norms import BatchNorm, Norm
from lit_transformer.blocks.position import Position, Randomised
from lit_transformer.blocks.residual import PostNorm, PreNorm, Sandwich
from lit_transformer.blocks.stack import Stack
from lit_transformer.dims import SizeError
from lit_transformer.networks.base import Network
from lit_transformer.training.parallel_styles import (
    EnterSequence,
    Gathered,
    OverSequence,
    Rowwise,
    Stream,
    VocabularyEmbedding,
    VocabularyHead,
)

PRODUCTS_OF_HEADS = ("query", "key", "value", "gate")
"""Products whose outputs belong to heads: each device computes those of its own."""

NORMS_OF_HEADS = ("query_norm", "key_norm")
"""Norms of each head by itself."""


def fully_sharded(network: Network, mesh: DeviceMesh, policy: MixedPrecisionPolicy | None = None) -> None:
    """Every layer's weights spread over the mesh and gathered when it is their turn (FSDP2, ZeRO-3).

    Args:
        network: The network; ``tensor_parallel`` comes first where both are wanted.
        mesh: One dimension: the ranks that see different data.
        policy: Types that the layers' weights are gathered in and their gradients summed in; left out: those of the
            weights. What stands around the layers keeps its type, and with it the residual stream.
    """
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    for module in network.modules():
        if isinstance(module, Stack):
            for layer in module.layers:
                fully_shard(layer, mesh=mesh, mp_policy=policy or plain)
    fully_shard(network, mesh=mesh, mp_policy=plain)


def tensor_parallel(network: Network, mesh: DeviceMesh) -> None:
    """Heads and hidden units spread over the mesh, norms over the sequence, and the vocabulary over embedding and loss.

    Megatron-LM's plan (Shoeybi et al., 2019, arXiv:1909.08053; sequence parallelism: Korthikanti et al., 2022,
    arXiv:2205.05198). Between the layers every device holds a part of the sequence, whose length the number of devices
    must divide. Losses are taken inside ``torch.distributed.tensor.parallel.loss_parallel()``. Dropout draws apart
    where devices have different parts of the sequence or different heads, and alike where they have the same.

    Args:
        network: The network, not sharded yet.
        mesh: One dimension: the devices that share each row.

    Raises:
        SizeError: The sizes do not divide, or a part has no plan.
    """
    check(network, mesh.size())
    for stack in [module for module in network.modules() if isinstance(module, Stack)]:
        stream = Stream()
        for layer in stack.layers:
            parallelize_module(layer, mesh, layer_plan(layer, stream))
            for part in (layer.attention, layer.cross_attention):
                if isinstance(part, Attention):
                    part.devices = mesh.size()
        parallelize_module(stack.layers[0], mesh, EnterSequence(stream, stack))
        parallelize_module(stack.norm, mesh, OverSequence(stream, gathered=True))
    for embedding in [module for module in network.modules() if isinstance(module, Embedding)]:
        parallelize_module(embedding, mesh, VocabularyEmbedding())
    for head in [module for module in network.modules() if isinstance(module, Head)]:
        if isinstance(head, TiedHead):
            head.weight = network.get_parameter("embedding.weight")
        parallelize_module(head, mesh, VocabularyHead())


def check(network: Network, devices: int) -> None:
    """Refuses what the plan cannot divide.

    Raises:
        SizeError: Names the key to edit.
    """
    dims = network.dims
    for name, value in (("n_heads", dims.n_heads), ("n_kv_heads", dims.kv_heads)):
        if value % devices:
            raise SizeError(f"dims.{name}", f"is {value}, which {devices} tensor-parallel devices do not divide; make "
                            f"it a multiple of {devices}, or tensor_parallel_size a divisor of it")  # fmt: skip
    for module in network.modules():
        part: object = None
        if isinstance(module, Layer):
            if type(module.attention) not in (Attention, GatedAttention):
                part = module.attention
            elif not isinstance(module.feed_forward, MLP | Gated):
                part = module.feed_forward
            elif type(module.residual) not in (PreNorm, PostNorm, Sandwich):
                part = module.residual
        elif isinstance(module, Position):
            part = module if module.has_bias or module.has_values or isinstance(module, Randomised) else None
        elif isinstance(module, BatchNorm) or (isinstance(module, Head) and type(module) not in (TiedHead, LinearHead)):
            part = module
        if part is not None:
            raise SizeError("trainer.strategy", f"tensor parallelism has no plan for {type(part).__name__}; valid: "
                            "Attention, MLP and gated feed-forwards, pre- and post-norm, rotary and absolute "
                            "positions; or use FSDP2, which takes everything")  # fmt: skip


def layer_plan(layer: nn.Module, stream: Stream) -> dict[str, ParallelStyle]:
    """What happens to each part of a layer, by its path."""
    assert isinstance(layer, Layer)
    plan: dict[str, ParallelStyle] = {}
    for name in ("attention", "cross_attention"):
        attention = getattr(layer, name)
        if attention is None:
            continue
        plan[name] = Gathered(stream)
        plan |= {f"{name}.{part}": ColwiseParallel() for part in PRODUCTS_OF_HEADS if hasattr(attention, part)}
        heads = [part for part in NORMS_OF_HEADS if getattr(attention, part) is not None]
        plan |= {f"{name}.{part}": OverSequence(Stream()) for part in heads}
        plan[f"{name}.output"] = Rowwise(stream)
    plan["feed_forward"] = Gathered(stream)
    plan |= {f"feed_forward.{part}": ColwiseParallel() for part in ("gate", "up") if hasattr(layer.feed_forward, part)}
    plan["feed_forward.down"] = Rowwise(stream)
    for name, module in layer.residual.named_modules():
        if isinstance(module, Norm):
            plan[f"residual.{name}"] = OverSequence(stream)
    return plan


def spread(
    network: Network, mesh: DeviceMesh, seed: int, device: torch.device, policy: MixedPrecisionPolicy | None = None
) -> None:
    """Both plans over a mesh with the dimensions "data_parallel" and "tensor_parallel", and weights to start with.

    Args:
        network: The network, on the meta device.
        mesh: The devices.
        seed: What weights are drawn from, each with its name.
        device: Where this rank's part goes.
        policy: As ``fully_sharded`` takes it.
    """
    data, tensor = mesh["data_parallel"], mesh["tensor_parallel"]
    if tensor.size() > 1:
        tensor_parallel(network, tensor)
        materialise(network, seed, device)  # drawn before they are cut twice
        if data.size() > 1:
            fully_sharded(network, data, policy)
    else:
        fully_sharded(network, data, policy)
        materialise(network, seed, device)


def spread_part(part: nn.Module, mesh: DeviceMesh) -> None:
    """A small part beside the network, whose weights are there already: shared out among ranks that see other data.

    Tensor-parallel ranks compute it alike.

    Args:
        part: A label head, say.
        mesh: The devices, as in ``spread``.
    """
    data = mesh["data_parallel"]
    if data.size() > 1:
        fully_shard(part, mesh=data, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))


def materialise(network: Network, seed: int, device: torch.device) -> None:
    """Gives a sharded network on the meta device its memory and its weights.

    Args:
        network: The network.
        seed: What weights are drawn from, each with its name.
        device: Where they go.
    """
    network.to_empty(device=device)
    cast(Any, network).initialise(seed)
