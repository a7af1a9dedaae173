"""The confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

INK, PAPER = np.array([8.0, 48.0, 107.0]), np.array([255.0, 255.0, 255.0])


def confusion_picture(
    counts: Int[Tensor, "C C"], names: Sequence[str], width: int = 640
) -> UInt8[Tensor, "3 pixels pixels"]:
    """Rows are the true classes, columns the predicted ones; a cell is as dark as its share of the row.

    Up to 20 classes are written beside the rows (and numbered above the columns) with the counts in the cells.

    Args:
        counts: Number of rows of each true class that each class was predicted for.
        names: Names of the classes.
        width: Least number of pixels of a side of the matrix.
    """
    from PIL import Image, ImageDraw

    table = counts.detach().cpu().double().numpy()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    cell = max(1, width // len(names))
    pixels = np.kron(shares[..., None], np.ones((cell, cell, 1))) * (INK - PAPER) + PAPER
    written = len(names) <= 20
    margin = 8 + 7 * max(len(name[:20]) + 3 for name in names) if written else 8
    picture = Image.new("RGB", (margin + pixels.shape[1], margin + pixels.shape[0]), "white")
    picture.paste(Image.fromarray(pixels.astype(np.uint8)), (margin, margin))
    if written:
        draw = ImageDraw.Draw(picture)
        for i, name in enumerate(names):
            middle = margin + i * cell + cell // 2 - 5
            draw.text((4, middle), f"{i} {name[:20]}", fill="black")
            draw.text((middle, margin - 14), str(i), fill="black")
            for j in range(len(names)):
                colour = "white" if shares[i, j] > 0.5 else "black"
                draw.text((margin + j * cell + 4, middle), str(int(table[i, j])), fill=colour)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
