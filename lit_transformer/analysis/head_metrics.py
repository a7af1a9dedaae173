"""What a head does, as a number from 0 to 1 (distance and entropy in their own units): one class a question.

A metric looks at a tile of attention weights at a time, so that long texts cost memory linear in their length.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lit_transformer.analysis.record import AttentionLayer, AttentionRecord
from lit_transformer.analysis.tile import Tile


class HeadMetric:
    """Base of the metrics: the mean over the queries that it has something to say of."""

    name: str
    own = True
    """Whether it makes sense only where queries and keys are the same text."""

    def measure(self, tile: Tile) -> tuple[Float[Tensor, "B H t"], Bool[Tensor, "B t"]]:
        """A value for each query, and whether it counts."""
        raise NotImplementedError


class Entropy(HeadMetric):
    """How spread the weights are, in nats: 0 looks at one token, log S at all alike."""

    name = "entropy"
    own = False

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class."""
        return tile.entropy, tile.counted


class Evenness(HeadMetric):
    """Entropy over the largest that the visible keys allow: 1 for a head that looks at all alike."""

    name = "evenness"
    own = False

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class; a query that sees one key alone says nothing."""
        visible = tile.visible.sum(-1)
        return tile.entropy / visible.clamp(min=2).log().unsqueeze(1), visible > 1


class Distance(HeadMetric):
    """How far away it looks on average, in tokens."""

    name = "distance"

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class."""
        distance = (tile.rows.unsqueeze(-1) - tile.columns).abs()
        return tile.on(distance.expand(len(tile.k_tokens), -1, -1)), tile.counted


class Offset(HeadMetric):
    """Weight on the token at a fixed offset: -1 is the previous one, 1 the next, 0 the token itself.

    Args:
        offset: Key index minus query index.
        name: What it is called in tables.
    """

    def __init__(self, offset: int, name: str | None = None) -> None:
        self.offset = offset
        self.name = name or f"offset{offset:+d}"

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class; queries at the edge, where there is no such token, do not count."""
        place = tile.rows + self.offset
        return tile.at(place), tile.counted & (place >= 0) & (place < tile.all_tokens.shape[1])


class FirstToken(HeadMetric):
    """Weight on the first token of the text, where heads put what they have no use for (an attention sink)."""

    name = "first"
    own = False

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class; the first token itself does not count."""
        return tile.weights[..., 0], tile.counted & (tile.rows > 0)


class DuplicateToken(HeadMetric):
    """Weight on earlier places of the same token, of queries that have one (Wang et al., 2022, arXiv:2211.00593)."""

    name = "duplicate"

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class."""
        earlier = tile.columns < tile.rows.unsqueeze(-1)
        chosen = tile.visible & earlier & (tile.q_tokens.unsqueeze(-1) == tile.k_tokens.unsqueeze(-2))
        return tile.on(chosen), chosen.any(-1)


class Induction(HeadMetric):
    """Weight on what followed the same token earlier (Olsson et al., 2022, arXiv:2209.11895)."""

    name = "induction"

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class; queries whose token is new do not count."""
        before = torch.roll(tile.k_tokens, 1, dims=1).unsqueeze(-2)
        possible = (tile.columns > 0) & (tile.columns <= tile.rows.unsqueeze(-1))
        chosen = tile.visible & possible & (tile.q_tokens.unsqueeze(-1) == before)
        return tile.on(chosen), chosen.any(-1)


class Separators(HeadMetric):
    """Weight on separators and punctuation (Clark et al., 2019, arXiv:1906.04341).

    Args:
        tokens: Ids of the separators.
    """

    name = "separators"
    own = False

    def __init__(self, tokens: Collection[int]) -> None:
        self.tokens = torch.tensor(sorted(tokens), dtype=torch.long)

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class; texts without any do not count."""
        chosen = torch.isin(tile.all_tokens, self.tokens.to(tile.all_tokens.device)).unsqueeze(1)
        return tile.on(chosen[..., : tile.weights.shape[-1]]), chosen.any(-1)


class Pairs(HeadMetric):
    """Weight on known partners: a syntactic relation, or the words that a translation is aligned with.

    Args:
        partners: (B, T, S) True where the query's partner is.
        name: What it is called in tables.
    """

    own = False

    def __init__(self, partners: Bool[Tensor, "B T S"], name: str = "pairs") -> None:
        self.partners = partners
        self.name = name

    def measure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """See the base class; queries without a partner do not count."""
        chosen = self.partners[:, tile.rows]
        return tile.on(chosen[..., : tile.weights.shape[-1]]), chosen.any(-1)


STANDARD: tuple[HeadMetric, ...] = (
    Entropy(), Evenness(), Distance(), Offset(-1, "previous"), Offset(1, "next"), Offset(0, "self"), FirstToken(),
    DuplicateToken(), Induction(),
)  # fmt: skip
"""Those that need nothing but the text."""


@dataclass(frozen=True)
class HeadTable:
    """Metrics of all heads.

    Args:
        rows: (path of the attention, number of the head), in the order of the layers.
        columns: Names of the metrics.
        values: (rows, columns); NaN where no query had anything to say.
    """

    rows: list[tuple[str, int]]
    columns: list[str]
    values: Float[Tensor, "R M"]

    def __getitem__(self, name: str) -> Tensor:
        """One metric of all heads."""
        return self.values[:, self.columns.index(name)]

    def best(self, name: str) -> tuple[str, int, float]:
        """The head that a metric is highest of."""
        values = self[name].nan_to_num(-torch.inf)
        row = int(values.argmax())
        return *self.rows[row], float(values[row])

    def text(self, digits: int = 3) -> str:
        """A table for the terminal."""
        head = ["head", *self.columns]
        lines = [
            [f"{path} {number}", *("-" if value.isnan() else f"{value:.{digits}f}" for value in values)]
            for (path, number), values in zip(self.rows, self.values, strict=True)
        ]
        widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in (head, *lines)
        )


@torch.no_grad()
def head_metrics(
    record: AttentionRecord,
    tokens: Int[Tensor, "B T"],
    source: Int[Tensor, "B S"] | None = None,
    metrics: Sequence[HeadMetric] = STANDARD,
    size: int | None = None,
) -> HeadTable:
    """Measures every head of a record.

    Args:
        record: What ``record_attention`` caught.
        tokens: What the decoder (or the only stack) read.
        source: What the encoder read, where there is one.
        metrics: What to measure; metrics of one text are left out (NaN) for cross-attention.
        size: Queries looked at together; left out: as many as fit well into memory that is near.
    """
    rows: list[tuple[str, int]] = []
    values: list[Tensor] = []
    for layer in record.layers:
        q_tokens, k_tokens = _texts(layer, tokens, source)
        rows.extend((layer.name, head) for head in range(layer.heads))
        values.append(_measured(layer, q_tokens, k_tokens, metrics, size))
    names = [metric.name for metric in metrics]
    return HeadTable(rows, names, torch.cat(values) if values else torch.zeros(0, len(names)))


def _texts(layer: AttentionLayer, tokens: Tensor, source: Tensor | None) -> tuple[Tensor, Tensor]:
    if layer.cross:
        assert source is not None, "cross-attention needs the source"
        return tokens, source
    if source is not None and layer.stack.endswith("encoder"):
        return source, source
    return tokens, tokens


def _measured(
    layer: AttentionLayer, q_tokens: Tensor, k_tokens: Tensor, metrics: Iterable[HeadMetric], size: int | None
) -> Float[Tensor, "H M"]:
    metrics = list(metrics)
    sums = torch.zeros(layer.heads, len(metrics), dtype=torch.float64)
    counts = torch.zeros(len(metrics), dtype=torch.float64)
    for where, weights in layer.tiles(size):
        index = torch.arange(where.start, where.stop, device=weights.device)
        tile = Tile(weights, index, q_tokens[:, where], k_tokens[:, : layer.shape[1]])
        for i, metric in enumerate(metrics):
            if layer.cross and metric.own:
                continue
            value, counted = metric.measure(tile)
            counted = counted & tile.counted
            sums[:, i] += (value.double() * counted.unsqueeze(1)).sum((0, 2)).cpu()
            counts[i] += float(counted.sum())
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.nan)
