"""A curve as a picture."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

WIDTH, HEIGHT, MARGIN = 640, 360, 48


def curve_picture(title: str, points: Sequence[tuple[float, float]]) -> UInt8[Tensor, "3 height width"]:
    """Points (x, y) joined by lines; x is drawn by its logarithm and must be at least 1.

    Args:
        title: Written above.
        points: In the order of x.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 8), title, fill="black")
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if finite:
        lowest, highest = min(y for _, y in finite), max(y for _, y in finite)
        height = max(highest - lowest, 1e-3)
        left, right = math.log(finite[0][0]), math.log(max(finite[-1][0], finite[0][0] + 1))

        def at(x: float, y: float) -> tuple[float, float]:
            across, up = (math.log(x) - left) / (right - left), (y - lowest) / height
            return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

        for step in range(5):
            y = lowest + height * step / 4
            place = at(finite[0][0], y)[1]
            draw.line([(MARGIN, place), (WIDTH - MARGIN, place)], fill="lightgrey")
            draw.text((4, place - 6), f"{y:.3f}", fill="black")
        power = 1
        while power <= finite[-1][0]:
            if power >= finite[0][0]:
                draw.text((at(power, lowest)[0] - 4, HEIGHT - MARGIN + 8), str(power), fill="black")
            power *= 2
        draw.line([at(x, y) for x, y in finite], fill=(8, 48, 107), width=2)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
