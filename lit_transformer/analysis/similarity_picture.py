"""Which heads do the same, as a figure."""

from html import escape

from lit_transformer.analysis.record import AttentionLayer, AttentionRecord
from lit_transformer.analysis.similarity import clustered, head_distances
from lit_transformer.errors import UserError

CELLS = 6e8
"""Most pairs of weights that are compared; of longer texts, queries spread evenly."""


def similarity_svg(record: AttentionRecord) -> str:
    """Distances between the heads of each stack, like heads beside each other: dark cells are alike.

    Args:
        record: What the attentions did.

    Raises:
        UserError: There is only one head.
    """
    groups: dict[tuple[str, bool], list[AttentionLayer]] = {}
    for layer in record.layers:
        groups.setdefault((layer.stack, layer.cross), []).append(layer)
    parts, top, widest = [], 10.0, 0.0
    for (stack, cross), layers in groups.items():
        if sum(layer.heads for layer in layers) < 2:
            continue
        content, side = _group(f"{stack}{', to the encoder' if cross else ''}", layers)
        parts.append(f'<g transform="translate(10 {top:g})">{content}</g>')
        top, widest = top + side + 30, max(widest, side)
    if not parts:
        raise UserError("head similarity: there is one head, and nothing to compare it with")
    width, height = widest + 20, top
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="10">'
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _group(title: str, layers: list[AttentionLayer]) -> tuple[str, float]:
    names = [f"{layer.layer}.{head}" for layer in layers for head in range(layer.heads)]
    queries = max(8, int(CELLS / (len(names) ** 2 * layers[0].shape[1])))
    distances = head_distances(layers, 16, queries)
    order = clustered(distances)
    cell = max(5.0, min(18.0, 900 / len(names)))
    left, top, side = 44.0, 52.0, cell * len(names)
    most = max(float(distances.max()), 1e-9)
    text = [f'<text x="0" y="12" font-size="13">{escape(title)}: Jensen-Shannon divergence of heads, in bits; '
            f"dark is alike (0 to {most:.2f})</text>"]  # fmt: skip
    for row, i in enumerate(order):
        for column, j in enumerate(order):
            share = 1 - float(distances[i, j]) / most
            red, green, blue = (round(255 + (ink - 255) * share) for ink in (8, 48, 107))
            text.append(
                f'<rect x="{left + column * cell:g}" y="{top + row * cell:g}" width="{cell:g}" height="{cell:g}" '
                f'fill="#{red:02x}{green:02x}{blue:02x}"><title>{names[i]} and {names[j]}: {float(distances[i, j]):.3f}'
                "</title></rect>"
            )
        if cell >= 8:
            middle = top + (row + 0.5) * cell + 3
            text.append(f'<text x="{left - 4:g}" y="{middle:g}" text-anchor="end">{names[i]}</text>')
            across = left + (row + 0.5) * cell + 3
            text.append(f'<text transform="translate({across:g} {top - 4:g}) rotate(-60)">{names[i]}</text>')
    return "".join(text), max(side + left + 20, side + top, 520)
