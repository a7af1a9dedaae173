"""Layers on one another, with the position, mask and kernel that they share."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.cache import Cache, Memory
from lit_transformer.blocks.context import Context, Parts, Visibility
from lit_transformer.blocks.kernels import FastestKernel, Kernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.masks import Causal, Full, Mask, Sites, require_visible
from lit_transformer.blocks.position import Position, RoPE
from lit_transformer.dims import Dims, SizeError

LayerFactory = Callable[[Dims], Layer]
# In signatures the list stands first, `list[LayerFactory] | LayerFactory`: jsonargparse tries to write a list as one
# class otherwise, and the recipe that a run stores would be broken.


class Stack(nn.Module):
    """``dims.n_layers`` layers. It owns position, mask and kernel; its layers share them unless one names its own.

    Args:
        dims: Sizes.
        layer: Makes a layer; a list is a pattern that repeats (local, local, global).
        position: Makes the position encoding.
        mask: Who may look at whom.
        kernel: How attention is computed.
    """

    def __init__(
        self,
        dims: Dims,
        layer: list[LayerFactory] | LayerFactory = Layer,
        position: Callable[[Dims], Position] = RoPE,
        mask: Mask | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__()
        pattern = layer if isinstance(layer, list) else [layer]
        if not pattern:
            raise SizeError("layer", "is an empty list; name at least one layer")
        self.dims = dims
        self.position = position(dims)
        self.mask = mask or Causal()
        self.kernel = kernel or FastestKernel()
        self.layers = nn.ModuleList(pattern[i % len(pattern)](dims) for i in range(dims.n_layers))
        self.norm = self._layers[-1].final_norm(dims)
        self.parts: Parts | None = None  # set where devices share the tokens of a row
        for each in self._layers:
            each.check(self.mask, self.position)
        for mask_in_use in self.masks:
            require_visible(mask_in_use, dims.max_len)
        for position_in_use in (self.position, *(each.own_position for each in self._layers)):
            if position_in_use is not None and position_in_use.has_bias and not self.kernel.takes_bias:
                raise SizeError("kernel", f"{type(self.kernel).__name__} cannot add the bias that position "
                                f"{type(position_in_use).__name__} needs; use SdpaKernel or EagerKernel")  # fmt: skip
            if position_in_use is not None and position_in_use.has_values and not self.kernel.takes_values:
                raise SizeError("kernel", f"{type(self.kernel).__name__} keeps no attention weights, which position "
                                f"{type(position_in_use).__name__} needs; choose kernel EagerKernel")  # fmt: skip

        for part in (part for each in self._layers for part in (each.attention, each.cross_attention)):
            if getattr(part, "soft_cap", None) is not None and not self.kernel.takes_soft_cap:
                raise SizeError("kernel", f"{type(self.kernel).__name__} cannot cap scores, which attention.soft_cap "
                                "asks for; choose FlexKernel, BlockedKernel or EagerKernel")  # fmt: skip
            if getattr(part, "dropout", 0.0) and not self.kernel.takes_dropout:
                raise SizeError("attention.dropout", f"is set, and kernel {type(self.kernel).__name__} has none: set "
                                "it to 0 (the layer's own dropout remains), or choose SdpaKernel")  # fmt: skip

    @property
    def masks(self) -> set[Mask]:
        """All masks in use, the stack's and those of layers of their own."""
        return {each.own_mask or self.mask for each in self._layers}

    @property
    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        prefix: Tensor | None = None,
        cache: Cache | None = None,
        drop: Callable[[Tensor], Tensor] | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Cache | None, Auxiliary]:
        """Runs embeddings (B, T, D) through all layers.

        Args:
            x: Embedded tokens, before any position.
            positions: (B or 1, T) integers; left out: the index in the row, counted on from the cache.
            documents: (B, T) document numbers, -1 for padding; left out: one document.
            prefix: (B, T) True for tokens that everybody sees.
            cache: What earlier calls left.
            drop: Dropout of the embedded stream, applied once the position has acted on it.
            memory: An encoder's states for the layers' cross-attention; with a cache, in the first call only.

        Returns:
            The stream (B, T, D) after the final norm, the advanced cache, auxiliary losses and statistics.
        """
        start = cache.length if cache else 0
        dtype = torch.promote_types(x.dtype, torch.float32)
        lineage = cache.lineage if cache else None
        if lineage is None:
            index = torch.arange(start, start + x.shape[1], device=x.device).unsqueeze(0)
        else:
            index = lineage.index[:, start : start + x.shape[1]]
        positions = index if positions is None else positions
        if cache is not None:
            cache = cache.advanced(positions, documents, prefix)
            if memory is not None:
                cache = replace(cache, memory=memory.sites)
            elif cache.memory is not None:
                memory = Memory(None, cache.memory)
        k, k_positions = Sites(index, documents, prefix), positions
        if cache is not None:
            room = lineage.index if lineage else torch.arange(cache.length, device=x.device).unsqueeze(0)
            k = Sites(room, cache.documents, cache.prefix).map(lambda field: field[:, : cache.length])
            k_positions = cache.positions[:, : cache.length]
        k = k.with_start()
        q = k.map(lambda field: field[:, start:])

        seen = None if lineage is None or cache is None else lineage.seen[..., : cache.length]
        parts = self.parts if self.training and torch.is_grad_enabled() and cache is None else None
        if parts is not None:
            own = parts.place(x.shape[1])
            x, positions, q = x[:, own], positions[:, own], q.map(lambda field: field[:, own])
            seen = torch.ones(1, 1, 1, dtype=torch.bool, device=x.device)  # the queries are not the last ones

        def context(position: Position, mask: Mask) -> Context:
            q_state = position.prepare(positions, dtype)
            same = start == 0 and parts is None
            k_state = q_state if same else position.prepare(k_positions, dtype) if position.needs_keys else None
            visible = Visibility(mask, q, k, seen)
            return Context(visible, position, q_state, k_state, self.kernel, start, states, in_memory, parts)

        states, in_memory = None if memory is None else memory.states, None if memory is None else across(q, memory)
        shared = context(self.position, self.mask)
        x = self.position.embed(x, shared.q_state)
        x = drop(x) if drop else x
        reports: list[Auxiliary] = []
        contexts: dict[tuple[int, Mask], Context] = {(id(self.position), self.mask): shared}
        for i, layer in enumerate(self._layers):
            found = shared
            if layer.own_position is not None or layer.own_mask is not None:
                position, mask = layer.own_position or self.position, layer.own_mask or self.mask
                key = (id(position), mask)
                if key not in contexts:
                    contexts[key] = context(position, mask)
                found = contexts[key]
            x, layer_cache, report = layer(x, found, cache.layers[i] if cache else None)
            if cache is not None:
                cache.layers[i] = layer_cache
            reports.append(report)
        return self.norm(x, shared), cache, Auxiliary.of_layers(reports)

    def new_cache(
        self, batch: int, max_len: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Cache:
        """Room for ``max_len`` tokens in ``batch`` rows, in the weights' type and place unless told otherwise."""
        if device is None or dtype is None:
            weight = next(self.parameters())
            device, dtype = device or weight.device, dtype or weight.dtype
        layers = [layer.new_cache(batch, max_len, device, dtype) for layer in self._layers]
        return Cache(layers, torch.zeros(batch, max_len, dtype=torch.long, device=device))


def across(q: Sites, memory: Memory) -> Visibility:
    """Every query sees all states of its own document."""
    k = memory.sites
    if k.document is None:
        q = Sites(q.index)
    elif q.document is None:
        q = Sites(q.index, torch.zeros_like(q.index))
    return Visibility(Full(), q, k)
