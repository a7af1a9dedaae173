"""One stack's attention in the explorer, and what is always kept of it."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_transformer.analysis.compact import (
    SMALLEST,
    Cells,
    Store,
    depth,
    halved,
    packed,
    pooled,
    pyramid,
    quantised,
    strongest,
    tiled,
)
from lit_transformer.analysis.details import Biases
from lit_transformer.analysis.head_metrics import HeadTable
from lit_transformer.analysis.importance import value_sizes
from lit_transformer.analysis.measured import measured
from lit_transformer.analysis.reading import Reading
from lit_transformer.analysis.record import AttentionLayer
from lit_transformer.analysis.similarity import clustered, head_distances

COARSE = 128
"""Every head is kept at the first level that is at most this wide and high."""
LINKS = 256
"""Texts longer than this also keep the strongest links of each query."""


def part_of(stack: str, cross: bool) -> str:
    """What a stack's attention is called: "cross", "encoder", "decoder" or "stack"."""
    return "cross" if cross else stack.rpartition(".")[2]


class Chapter:
    """The attentions of one stack to its own tokens, or to an encoder's states.

    Args:
        reading: What was read.
        model: Where the chapter's description goes.
        stack: Name of the stack.
        cross: Whether the keys are an encoder's states.
        layers: Its attentions.
        chosen: Heads that are wanted in full.
        store: Where the bytes go.
    """

    def __init__(
        self, reading: Reading, model: dict[str, Any], stack: str, cross: bool, layers: list[AttentionLayer],
        chosen: list[tuple[int, int]], store: Store,
    ) -> None:  # fmt: skip
        self.reading, self.model, self.layers, self.chosen, self.store = reading, model, layers, chosen, store
        self.name, self.cross, self.stack = part_of(stack, cross), cross, stack
        self.shape = layers[0].shape
        self.heads = [(i, head) for i, layer in enumerate(layers) for head in range(layer.heads)]
        self.missing = {"weights": 0, "query/key/value": 0, "gradients": 0}
        from_source = reading.source is not None and (cross or stack.endswith("encoder"))
        self.described: dict[str, Any] = {
            "name": self.name, "cross": cross, "rows": self.shape[0], "columns": self.shape[1],
            "queries": "sourceWords" if from_source and not cross else "words",
            "keys": "sourceWords" if from_source else "words",
            "layers": [self._layer(layer) for layer in layers],
            "maps": {}, "links": {}, "details": {},
        }  # fmt: skip
        model["chapters"].append(self.described)
        self._overview()

    def _layer(self, layer: AttentionLayer) -> dict[str, Any]:
        call = layer.calls[0] if layer.calls else None
        return {
            "name": layer.name, "layer": layer.layer, "heads": layer.heads,
            "cap": call.soft_cap if call else None, "groups": call.k.shape[1] if call else layer.heads,
        }  # fmt: skip

    def _overview(self) -> None:
        """What is always kept: metrics, small pictures, each head at a coarse level, lengths of values."""
        table = self.table
        self.described["metrics"] = {
            "names": table.columns,
            "values": [[None if np.isnan(v) else round(v, 4) for v in row] for row in table.values.tolist()],
        }
        self.described["order"] = clustered(self._distances())
        self.links: dict[tuple[int, int], bytes] = {}
        small: list[np.ndarray] = []
        first = depth(self.shape, COARSE)
        for place, layer in enumerate(self.layers):
            for head, levels in enumerate(self._coarse(place, layer, first)):
                while max(levels[-1].shape) > SMALLEST:
                    levels.append(halved(levels[-1]))
                small.append(levels.pop())
                if levels:
                    self.add_map(f"{place}.{head}", first, [(each, tiled(each)) for each in levels])
        self.described["thumbs"] = {"blob": self.store.put_array(*small), "rows": small[0].shape[0],
                                    "columns": small[0].shape[1], "level": depth(self.shape)}  # fmt: skip
        sizes = [value_sizes(layer) for layer in self.layers]
        if all(each is not None for each in sizes):
            values = torch.cat([each for each in sizes if each is not None]).float().cpu().numpy()
            self.described["values"] = self.store.put_array(values.astype("<f4"))

    @cached_property
    def table(self) -> HeadTable:
        """Metrics of the heads."""
        return measured(self.reading, self.layers)

    def _distances(self) -> Tensor:
        return head_distances(self.layers, 16, max(8, int(6e7 / (len(self.heads) ** 2 * self.shape[1]))))

    def _coarse(self, place: int, layer: AttentionLayer, first: int) -> list[list[Cells]]:
        """Each head at one level of detail; the strongest links of long texts are noted on the way."""
        step = 2**first
        parts: list[np.ndarray] = []
        links: list[tuple[np.ndarray, np.ndarray]] = []
        for _, weights in layer.tiles(step * max(1, 64 // step)):
            parts.append(quantised(pooled(weights[0], step, self.shape[1])))
            if max(self.shape) > LINKS:
                links.append(strongest(weights[0], self.kept))
        for head in range(layer.heads if links else 0):
            keys = np.concatenate([each[0][head] for each in links]).astype("<u2")
            values = np.concatenate([each[1][head] for each in links])
            # Column by column: what stands beside each other is alike, and deflates better.
            self.links[place, head] = packed(keys.T, values.T)
        return [[each] for each in np.concatenate(parts, axis=1)]

    @property
    def kept(self) -> int:
        """How many of each query's strongest links are kept."""
        return min(16 if max(self.shape) <= 2048 else 8, self.shape[1])

    def add_map(self, key: str, first: int, levels: list[tuple[Cells, tuple[bytes, list[int]]]]) -> None:
        """Adds levels of a matrix before those that are there."""
        known = self.described["maps"].get(key)
        added = self.store.put_levels(levels)
        self.described["maps"][key] = {"first": first, "levels": added + (known["levels"] if known else [])}

    def try_map(self, key: str, cells: Cells, whatever: bool = False) -> bool:
        """Adds the levels of a matrix that are not there yet, if there is room."""
        known = self.described["maps"].get(key)
        until = known["first"] if known else 99
        levels: list[tuple[Cells, tuple[bytes, list[int]]]] = []
        room = None if whatever else self.store.room
        for each in pyramid(cells)[:until]:
            found = tiled(each, room)
            if found is None:
                return False
            levels.append((each, found))
            room = None if room is None else room - len(found[0])
        self.add_map(key, 0, levels)
        return True

    def link(self, place: int, head: int) -> None:
        """Adds the strongest links of a head."""
        data = self.links[place, head]
        self.described["links"][f"{place}.{head}"] = {"blob": self.store.put(data), "count": self.kept}

    @property
    def ranked(self) -> list[tuple[int, int]]:
        """The heads, those that look at the fewest tokens first."""
        spread = self.table["evenness"].nan_to_num(1.0).tolist()
        return [self.heads[i] for i in sorted(range(len(self.heads)), key=spread.__getitem__)]

    @cached_property
    def biases(self) -> dict[int, Biases | None]:
        """What positions add to each layer's scores, as far as it was asked for."""
        return {}

    def cells(self, place: int, head: int) -> Cells:
        """The whole matrix of a head."""
        cells = np.zeros(self.shape, dtype=np.uint8)
        for rows, weights in self.layers[place].tiles(512, slice(head, head + 1)):
            cells[rows, : weights.shape[-1]] = quantised(weights[0, 0])
        return cells

    def left_out(self) -> list[str]:
        """What there was no room for."""
        return [f"{what} of {count} of the {len(self.heads)} heads ({self.name})"
                for what, count in self.missing.items() if count]  # fmt: skip
