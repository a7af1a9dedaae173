"""Which source tokens a decoder looks at, as numbers and as a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lit_transformer.analysis.confusion import INK, PAPER
from lit_transformer.analysis.record import record_attention
from lit_transformer.blocks.cross_attention import CrossAttention
from lit_transformer.errors import UserError
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


Span = tuple[int, int]
"""First character, and the one behind the last."""


def token_partners(
    target: Sequence[Span], source: Sequence[Span], pairs: Sequence[tuple[Span, Span]]
) -> Bool[Tensor, "T S"]:
    """Which source tokens say what a target token says.

    Args:
        target: Characters of each target token.
        source: Characters of each source token.
        pairs: A known alignment: spans of the source text, each with the span of the target text that means it.
    """

    def inside(token: Span, span: Span) -> bool:
        return max(token[0], span[0]) < min(token[1], span[1])

    found = torch.zeros(len(target), len(source), dtype=torch.bool)
    for there, here in pairs:
        rows = torch.tensor([inside(token, here) for token in target])
        columns = torch.tensor([inside(token, there) for token in source])
        found |= rows.unsqueeze(1) & columns
    return found


def alignment_accuracy(weights: Float[Tensor, "*H T S"], partners: Bool[Tensor, "T S"]) -> Float[Tensor, "*H"]:
    """The share of target tokens with a known partner that look most at one; an alignment error is what is left to 1.

    Args:
        weights: Cross-attention; its row for a target token is that of the step that writes it.
        partners: From ``token_partners``.
    """
    hits = partners.expand(weights.shape).gather(-1, weights.argmax(-1, keepdim=True)).squeeze(-1)
    known = partners.any(-1)
    return (hits & known).sum(-1).double() / known.sum().clamp(min=1)


def aligned_heads(
    network: Network, tokenizer: Any, examples: Sequence[tuple[str, str, Sequence[tuple[Span, Span]]]]
) -> Float[Tensor, "L H"]:
    """The accuracy of every head of cross-attention over texts with a known alignment, as of ``Numerals``.

    Args:
        network: A trained encoder-decoder.
        tokenizer: Of both sides.
        examples: Source, target, and the pairs of their spans.

    Raises:
        UserError: The network has no cross-attention.
    """
    hits, count = torch.zeros(()), 0.0
    device = next(network.parameters()).device
    end = network.vocabulary.eos_id
    for source, target, pairs in examples:
        theirs, ours = tokenizer.backend.encode(source), tokenizer.backend.encode(target)
        inputs = {
            "tokens": torch.tensor([[network.vocabulary.start_id, *ours.ids[:-1]]], device=device),
            "source": torch.tensor([[*theirs.ids, *([] if end is None else [end])]], device=device),
        }
        weights = cross_attention(network, inputs)
        if weights is None:
            raise UserError(f"{type(network).__name__} has no cross-attention, whose alignment could be looked at")
        partners = token_partners(ours.offsets, [*theirs.offsets, *([] if end is None else [(0, 0)])], pairs)
        known = float(partners.any(-1).sum())
        hits = hits + alignment_accuracy(weights[:, 0].cpu(), partners) * known
        count += known
    return hits / max(count, 1.0)
