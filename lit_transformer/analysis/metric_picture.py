"""Metrics of all heads as a picture."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lit_transformer.analysis.confusion import INK, PAPER
from lit_transformer.analysis.head_metrics import HeadTable

CELL, LEFT, TOP = 18, 190, 84


def metric_picture(table: HeadTable) -> UInt8[Tensor, "3 height width"]:
    """Rows are heads, columns metrics; shares are dark at 1, distance and entropy at the largest of their column.

    Args:
        table: What ``head_metrics`` found.
    """
    from PIL import Image, ImageDraw

    values = table.values.double().numpy()
    with np.errstate(invalid="ignore"):
        most = np.where(np.isnan(values), 0, values).max(axis=0, initial=0)
    scale = np.array(
        [top if name in ("entropy", "distance") else 1.0 for name, top in zip(table.columns, most, strict=True)]
    )
    shares = np.clip(values / np.maximum(scale, 1e-9), 0, 1)
    wide, high = 3 * CELL, max(8, min(CELL, 1400 // max(1, len(table.rows))))
    picture = Image.new("RGB", (LEFT + wide * len(table.columns), TOP + high * len(table.rows)), "white")
    draw = ImageDraw.Draw(picture)
    for j, name in enumerate(table.columns):
        draw.text((LEFT + j * wide + 4, TOP - 32), name[:9], fill="black")
        draw.text((LEFT + j * wide + 4, TOP - 18), f"to {scale[j]:.3g}", fill="grey")
    draw.text((4, 8), "metrics of heads", fill="black")
    for i, (path, head) in enumerate(table.rows):
        if high >= 11:
            draw.text(
                (4, TOP + i * high + high // 2 - 6), f"{path.removesuffix('.attention')[-24:]} {head}", fill="black"
            )
        for j in range(len(table.columns)):
            box = [LEFT + j * wide, TOP + i * high, LEFT + (j + 1) * wide - 2, TOP + (i + 1) * high - 2]
            if np.isnan(values[i, j]):
                draw.rectangle(box, outline="lightgrey")
                continue
            colour = tuple(int(part) for part in PAPER + (INK - PAPER) * shares[i, j])
            draw.rectangle(box, fill=colour)
            if high >= 12:
                ink = "white" if shares[i, j] > 0.5 else "black"
                draw.text((box[0] + 6, box[1] + high // 2 - 6), f"{values[i, j]:.2f}", fill=ink)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
