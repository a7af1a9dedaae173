"""Which source tokens a decoder looks at, as numbers and as a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lit_transformer.analysis.confusion import INK, PAPER
from lit_transformer.analysis.record import record_attention
from lit_transformer.blocks.cross_attention import CrossAttention
from lit_transformer.generation.runner import evaluating
from lit_transformer.networks.base import Network


@torch.no_grad()
def cross_attention(network: Network, inputs: dict[str, Any]) -> Float[Tensor, "L B H T S"] | None:
    """The weights of every layer's attention to the source; None where the network has no such attention.

    Args:
        network: The network; it is run once, without dropout.
        inputs: What it is called with.
    """
    if not any(isinstance(module, CrossAttention) for module in network.modules()):
        return None
    with evaluating(network), record_attention(network) as record:
        network(**inputs)
    return torch.stack([layer.weights() for layer in record.of(cross=True)])


def alignment_picture(
    weights: Float[Tensor, "T S"], target: Sequence[str], source: Sequence[str], cell: int = 22
) -> UInt8[Tensor, "3 height width"]:
    """Rows are target tokens, columns source tokens; a cell is as dark as its weight.

    Args:
        weights: How much each target token looks at each source token.
        target: Names of the rows.
        source: Names of the columns.
        cell: Number of pixels of a side of a cell.
    """
    from PIL import Image, ImageDraw

    shares = weights.detach().cpu().double().clamp(0, 1).numpy()
    left, top = (12 + 7 * max((len(name) for name in names), default=0) for names in (target, source))
    pixels = np.kron(shares[..., None], np.ones((cell, cell, 1))) * (INK - PAPER) + PAPER
    picture = Image.new("RGB", (left + pixels.shape[1], top + pixels.shape[0]), "white")
    picture.paste(Image.fromarray(pixels.astype(np.uint8)), (left, top))
    draw = ImageDraw.Draw(picture)
    for i, name in enumerate(target):
        draw.text((4, top + i * cell + cell // 2 - 5), name, fill="black")
    # Names of columns are written sideways: on a strip that is turned.
    strip = Image.new("RGB", (top, pixels.shape[1]), "white")
    sideways = ImageDraw.Draw(strip)
    for i, name in enumerate(source):
        sideways.text((4, i * cell + cell // 2 - 5), name, fill="black")
    picture.paste(strip.transpose(Image.Transpose.ROTATE_90), (left, 0))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
