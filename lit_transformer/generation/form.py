"""The decoding form of a network: the same network, some of whose parts are replaced by equal ones that need fewer
operations, as a step of one token is made of many small ones.

Layers, residual orders and stacks are the network's own; a part that is not in the table below stays what it is, so
every network has a decoding form, and what it computes is the same.
"""  # fmt: skip

import copy
import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks.attention import Attention, BaseAttention
from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.context import Context
from lit_transformer.blocks.embedding import Head, LinearHead, TiedHead
from lit_transformer.blocks.feed_forward import FeedForward, Gated
from lit_transformer.blocks.kernels import FastestKernel, SdpaKernel
from lit_transformer.blocks.linear import Linear, is_plain
from lit_transformer.blocks.norms import Norm, RMSNorm
from lit_transformer.blocks.position import RoPE
from lit_transformer.blocks.position.base import angles
from lit_transformer.blocks.position.rotary import Waves
from lit_transformer.generation.weights import Product, Weights
from lit_transformer.networks.base import Network


def decoding_form(network: Network, weights: Weights | None = None, rows: int = 1) -> Network:
    """A network that decodes as this one does, faster; it has no gradients and does not follow later training.

    Args:
        network: One that writes text, on one device, not compiled; another one is returned as it is.
        weights: How weights are held; left out: exactly.
        rows: About how many rows are decoded together.
    """
    if isinstance(network, Former) or not can_be_formed(network):
        return network
    with torch.inference_mode(False), torch.no_grad():
        replacing = _Replacing(weights or Weights(), rows)
        encoder = getattr(network, "encoder", None)
        if weights is None and encoder is not None:  # it reads once: a copy of its weights would not be repaid
            replacing.done[id(encoder)] = encoder
        form: Network = replacing.replaced(network)
    return form


def worth_forming(network: Network, steps: int, rows: int) -> Network:
    """The exact decoding form, where so many steps repay the copying of weights; else the network itself."""
    return decoding_form(network, None, rows) if steps >= Weights.worth_from else network


def duplicate(network: Network) -> Network:
    """A network of its own that shares the weights."""
    copies: Network = _Copying(Weights(), 1).replaced(network)
    return copies


class Former:
    """Marks the modules of a decoding form."""


@cache
def _direct(kind: Any) -> Any:
    """The same class, whose call is its ``forward``: nothing stands between, where there are no hooks."""
    return type(kind.__name__, (kind, Former), {"__module__": kind.__module__, "__call__": kind.forward})


def can_be_formed(network: Network) -> bool:
    """Whether all parts are plain modules with plain float32 weights on the CPU."""
    if torch.is_autocast_enabled("cpu") or any(each._compiled_call_impl is not None for each in network.modules()):
        return False
    return all(
        type(each) is nn.Parameter and each.dtype == torch.float32 and each.device.type == "cpu"
        for each in network.parameters()
    )


def direct(module: nn.Module) -> nn.Module:
    """The module, on the shortest way: its call is its ``forward``, its children are plain attributes."""
    if type(module).__call__ is not nn.Module.__call__:
        return module
    module.__class__ = _direct(type(module))  # type: ignore[arg-type]
    module.__dict__.update(module._modules)
    return module


class _Replacing:
    """Goes through a network once; a module that stands in several places is replaced by one."""

    def __init__(self, weights: Weights, rows: int) -> None:
        self.weights = weights
        self.rows = rows
        self.done: dict[int, nn.Module] = {}

    def replaced(self, module: nn.Module) -> Any:
        if id(module) not in self.done:
            same = module
            if not module._forward_hooks and not module._forward_pre_hooks:
                same = direct(self.equal(module))
            self.done[id(module)] = same
        return self.done[id(module)]

    def equal(self, module: nn.Module) -> nn.Module:
        """The faster part, or the same one with faster parts inside."""
        kind = type(module)
        if isinstance(module, Linear) and is_plain(module):
            return self.weights.hold(module.weight, module.bias, self.rows)
        if kind in (TiedHead, LinearHead):
            return HeldHead(direct(self.weights.hold(module.weight, None, self.rows)))  # type: ignore[arg-type]
        if kind is RMSNorm:
            return OneScaleNorm(module)  # type: ignore[arg-type]
        if kind is RoPE and WholeRoPE.serves(module):  # type: ignore[arg-type]
            return WholeRoPE(module)  # type: ignore[arg-type]
        if kind is Attention and all(map(is_plain, (module.query, module.key, module.value))):  # type: ignore[arg-type]
            return self.joint(module)  # type: ignore[arg-type]
        if isinstance(module, Gated) and is_plain(module.gate) and is_plain(module.up):
            return self.gated(module)
        same = copy.copy(module)
        same._modules = {name: child and self.replaced(child) for name, child in module._modules.items()}
        return same

    def hold(self, *linears: nn.Module) -> nn.Module:
        """Several products of one input as one."""
        weight = torch.cat([each.weight for each in linears])  # type: ignore[misc]
        bias = None if linears[0].bias is None else torch.cat([each.bias for each in linears])  # type: ignore[misc]
        return direct(self.weights.hold(weight, bias, self.rows))

    def joint(self, attention: Attention) -> "JointAttention":
        """Query, key and value as one product."""
        product = self.hold(attention.query, attention.key, attention.value)
        norms = [None if each is None else self.replaced(each) for each in (attention.query_norm, attention.key_norm)]
        return JointAttention(attention, product, self.replaced(attention.output), *norms)

    def gated(self, feed_forward: Gated) -> "JointGated":
        """Gate and up as one product."""
        product = self.hold(feed_forward.gate, feed_forward.up)
        return JointGated(product, self.replaced(feed_forward.activation), self.replaced(feed_forward.down))


class _Copying(_Replacing):
    """Replaces every module by a copy."""

    def replaced(self, module: nn.Module) -> Any:
        if id(module) not in self.done:
            same = self.done[id(module)] = copy.copy(module)
            same._modules = {name: child and self.replaced(child) for name, child in module._modules.items()}
        return self.done[id(module)]


class HeldHead(Head):
    """A head whose weight is held in another way.

    Args:
        product: The product with its weight.
    """

    def __init__(self, product: Product) -> None:
        super().__init__()
        self.product = product

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(V, D)."""
        return self.product.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.product(hidden)
        return logits


class OneScaleNorm(Norm):
    """RMSNorm in four operations: ``x / sqrt(|x|^2 + D eps)`` times the weight, which holds the sqrt(D).

    Args:
        norm: The norm to replace.
    """

    def __init__(self, norm: RMSNorm) -> None:
        nn.Module.__init__(self)
        self.size = norm.size
        self.gain = norm.weight.detach() * math.sqrt(norm.size)
        self.least = torch.tensor(math.sqrt(norm.size * norm.eps))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        """(..., D) -> (..., D)."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x.div(torch.hypot(length, self.least)).mul_(self.gain)


class WholeRoPE(RoPE):
    """RoPE over whole heads in three operations: the waves are laid out as the head is.

    Args:
        position: The position to replace.
    """

    def __init__(self, position: RoPE) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in vars(position).items() if k[0] != "_"})
        start = torch.zeros(1, 1, dtype=torch.long)
        self.waves = {}
        for dtype in (torch.float32, torch.float64):
            once = position.scaling.frequencies(position.base, position.rotary_dim, start, dtype)
            self.waves[dtype] = torch.cat((once, once), -1)
        half = torch.full((position.rotary_dim // 2,), position.scaling.attention_factor)
        self.signs = torch.cat((-half, half))

    @staticmethod
    def serves(position: RoPE) -> bool:
        """Whether it is the same: all dimensions turn, once and for all."""
        return position.rotary_dim == position.dims.head_size and not position.turns_all_keys

    def prepare(self, positions: Tensor, dtype: torch.dtype = torch.float32) -> Waves:
        """Cosines and signed sines, (B or 1, 1, T, K)."""
        angle = angles(positions, self.waves[dtype]).unsqueeze(1)
        factor = self.scaling.attention_factor
        cos = angle.cos() if factor == 1 else angle.cos().mul_(factor)
        return cos, angle.sin().mul_(self.signs)

    def rotate(self, q: Tensor, k: Tensor, q_state: Waves, k_state: Waves) -> tuple[Tensor, Tensor]:
        """Turns every pair."""
        return self.turn(q, q_state), self.turn(k, k_state)

    def turn(self, x: Tensor, waves: Waves) -> Tensor:
        """Turns (B, heads, T, K)."""
        cos, sin = waves
        return torch.addcmul(x * cos, x.roll(self.rotary_dim // 2, -1), sin)


class JointAttention(BaseAttention):
    """Attention with one product for query, key and value, which turn together.

    Args:
        attention: The attention to replace.
        product: The product of all three.
        output: The output's product.
        query_norm: Norm of the queries, if any.
        key_norm: Norm of the keys, if any.
    """

    def __init__(
        self,
        attention: Attention,
        product: nn.Module,
        output: nn.Module,
        query_norm: nn.Module | None,
        key_norm: nn.Module | None,
    ) -> None:
        super().__init__(attention.dims)
        self.product = product
        self.output = output
        self.query_norm = query_norm
        self.key_norm = key_norm
        self.soft_cap = attention.soft_cap
        self.new_cache = attention.new_cache  # type: ignore[method-assign]
        dims = attention.dims
        self.heads, self.groups, self.size = dims.n_heads, dims.kv_heads, dims.head_size

    def forward(self, x: Tensor, context: Context, cache: Any = None) -> tuple[Tensor, Any]:
        """See ``Attention``."""
        batch, length, _ = x.shape
        heads = self.product(x).view(batch, length, -1, self.size).transpose(1, 2)
        position = context.position
        if self.query_norm is None and cache is not None and isinstance(position, WholeRoPE):
            both, v = heads.split_with_sizes((self.heads + self.groups, self.groups), 1)
            q, k = position.turn(both, context.q_state).split_with_sizes((self.heads, self.groups), 1)
            k, v = cache.append(k, v, context.cache_start)
        else:
            q, k, v = heads.split_with_sizes((self.heads, self.groups, self.groups), 1)
            if self.query_norm is not None and self.key_norm is not None:
                q, k = self.query_norm(q, context), self.key_norm(k, context)
            q, k, v = context.remember(q, k, v, cache)
        if context.is_plain and self.soft_cap is None and isinstance(context.kernel, FastestKernel | SdpaKernel):
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads != self.groups)
        else:
            y = context.attend(q, k, v, 0.0, self.soft_cap)
        return self.output(y.transpose(1, 2).reshape(batch, length, -1)), cache


class JointGated(FeedForward):
    """A gated feed-forward with one product for gate and up.

    Args:
        product: The product of both, the gate first.
        activation: Function of the gate.
        down: The product behind.
    """

    def __init__(self, product: nn.Module, activation: nn.Module, down: nn.Module) -> None:
        nn.Module.__init__(self)
        self.product = product
        self.activation = activation
        self.down = down

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Auxiliary]:
        """See ``Gated``."""
        gate, up = self.product(x).chunk(2, -1)
        return self.down(self.activation(gate) * up), Auxiliary.none()
