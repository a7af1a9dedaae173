"""The mask as ``torch.nn.attention.flex_attention`` wants it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.masks.base import Mask
from lit_transformer.blocks.masks.sites import Sites

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch, head, query index, key index) -> visible, on single indices under ``vmap``."""


def mask_mod(mask: Mask, q: Sites, k: Sites) -> MaskMod:
    """The same predicate over single indices of (B or 1, T) queries and (B or 1, S) keys."""

    def at(sites: Sites, batch: Tensor, index: Tensor) -> Sites:
        return sites.map(lambda field: field[0][index] if field.shape[0] == 1 else field[batch, index])

    def visible(batch: Tensor, head: Tensor, q_index: Tensor, k_index: Tensor) -> Tensor:
        return mask.allowed(at(q, batch, q_index), at(k, batch, k_index))

    return visible


def block_mask(visible: MaskMod, batch: int | None, q_len: int, k_len: int, device: torch.device) -> Any:
    """Which blocks hold anything visible; ``batch`` None: the same for all rows."""
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(visible, batch, None, q_len, k_len, device=device)


@lru_cache(maxsize=64)
def plain_block_mask(mask: Mask, start: int, q_len: int, k_len: int, device: torch.device) -> Any:
    """The same of rows without documents and prefix, whose queries begin at ``start``."""
    index = torch.arange(k_len, device=device).unsqueeze(0)
    visible = mask_mod(mask, Sites(index[:, start : start + q_len]), Sites(index))
    return block_mask(visible, None, q_len, k_len, device)
