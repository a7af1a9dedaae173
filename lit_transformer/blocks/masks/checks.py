"""What is refused when a network is built."""

from functools import lru_cache

import torch

from lit_transformer.blocks.masks.base import Mask
from lit_transformer.blocks.masks.sites import Sites
from lit_transformer.dims import SizeError

_LOOK = 1024
"""Tokens over which a mask is tried out; patterns of a longer period are not judged."""


@lru_cache(maxsize=256)
def _tried(mask: Mask, length: int) -> tuple[bool, bool]:
    """Whether anything is visible, and whether anything later is, over a row without documents and prefix."""
    index = torch.arange(length, device="cpu")
    allowed = mask.allowed(Sites(index).queries(), Sites(index).keys())
    return bool(allowed.any()), bool(allowed.triu(1).any())


def require_visible(mask: Mask, length: int | None, key: str = "mask") -> None:
    """Refuses a mask that hides everything from a row of ``length`` tokens.

    Raises:
        SizeError: Nothing is visible.
    """
    if not _tried(mask, min(length or _LOOK, _LOOK))[0]:
        raise SizeError(key, f"{mask!r} hides every token from every other; loosen it, or join its parts with Or")


def require_causal(mask: Mask, length: int | None, key: str = "mask") -> None:
    """Refuses a mask that shows a decoder the tokens it is to predict.

    Raises:
        SizeError: A token sees a later one.
    """
    if _tried(mask, min(length or _LOOK, _LOOK))[1]:
        raise SizeError(key, f"{mask!r} lets tokens see later ones, which a decoder is to predict; "
                        "write And([Causal, ...]) around it")  # fmt: skip
