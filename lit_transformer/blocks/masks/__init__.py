"""Masks: who may look at whom. One class and one line of a recipe each; they combine with ``&`` and ``|``."""

from lit_transformer.blocks.masks.anchors import GlobalTokens, Sinks
from lit_transformer.blocks.masks.base import And, Mask, Or
from lit_transformer.blocks.masks.checks import require_causal, require_visible
from lit_transformer.blocks.masks.common import Causal, Documents, Full, PrefixCausal
from lit_transformer.blocks.masks.flex import MaskMod, block_mask, mask_mod, plain_block_mask
from lit_transformer.blocks.masks.local import Dilated, SlidingWindow
from lit_transformer.blocks.masks.sites import Sites
from lit_transformer.blocks.masks.sparse import BigBird, BlockSparse, FixedSparse
from lit_transformer.blocks.masks.tiles import Tiles, plain_tiles, tiles

__all__ = [
    "And", "BigBird", "BlockSparse", "Causal", "Dilated", "Documents", "FixedSparse", "Full", "GlobalTokens", "Mask",
    "MaskMod", "Or", "PrefixCausal", "Sinks", "Sites", "SlidingWindow", "Tiles", "block_mask", "mask_mod",
    "plain_block_mask", "plain_tiles", "require_causal", "require_visible", "tiles",
]  # fmt: skip
