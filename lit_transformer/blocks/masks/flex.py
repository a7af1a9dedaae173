"""The mask as ``torch.nn.attention.flex_attention`` wants it."""

from collections.abc import Callable

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
