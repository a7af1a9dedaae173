"""One stack's attention in the explorer: what is always kept of it, and what is added while there is room."""

from collections.abc import Callable, Iterator, Sequence
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
    pyramid,
    quantised,
    signed_bytes,
    strongest,
    tiled,
)
from lit_transformer.analysis.details import biases, log_sums, vectors
from lit_transformer.analysis.gradients import gradient_weighted
from lit_transformer.analysis.head_metrics import HeadTable
from lit_transformer.analysis.importance import value_sizes
from lit_transformer.analysis.lens import likeliest
from lit_transformer.analysis.measured import measured
from lit_transformer.analysis.reading import Reading
from lit_transformer.analysis.record import AttentionLayer
from lit_transformer.analysis.rollout import rollout, with_residual
from lit_transformer.analysis.similarity import clustered, head_distances
from lit_transformer.errors import UserError

Progress = Callable[[str], None]

COARSE = 128
"""Every head is kept at the first level that is at most this wide and high."""
LINKS, PATHS = 256, 32
"""Texts longer than this also keep the strongest links of each query; and how many of a layer's mean."""
SHADES = 17
"""Gradients are kept in 16 shades, which deflate to half of what 256 do."""
BEST = 4
"""Heads that everything is kept of before others are filled up."""
ROLLOUT, GRADIENT, LENS = 1024, 512, 200_000_000
"""Longest texts that are rolled out and differentiated, and most logits that a layer's lens holds."""

Step = Callable[[], None]


def unheard(what: str) -> None:
    """Tells nobody."""


def chapters(reading: Reading, wanted: Sequence[str], store: Store, heard: Progress) -> "list[Chapter]":
    """The chapters of a reading, with what is always kept in them.

    Raises:
        UserError: A head is wanted that there is not.
    """
    groups: dict[tuple[str, bool], list[AttentionLayer]] = {}
    for layer in reading.record.layers:
        groups.setdefault((layer.stack, layer.cross), []).append(layer)
    model: dict[str, Any] = {
        "name": reading.name, "words": reading.words, "sourceWords": reading.source_words, "parts": reading.parts,
        "given": reading.given, "chapters": [],
    }  # fmt: skip
    model["lens"] = _lens(reading, store, heard)
    model["next"] = _next(reading)
    for name in wanted:
        if not any(_place(name, stack, cross, layers) for (stack, cross), layers in groups.items()):
            there = "; ".join(f"{_key(*group)} 0.0 to {layers[-1].layer}.{layers[-1].heads - 1}"
                              for group, layers in groups.items())  # fmt: skip
            raise UserError(f"head {name!r}: there is none in {reading.name}; a head is LAYER.HEAD, there are {there}")
    built = []
    for (stack, cross), layers in groups.items():
        heard(f"{reading.name}: {_key(stack, cross)}")
        chosen = [place for name in wanted for place in _place(name, stack, cross, layers)]
        built.append(Chapter(reading, model, stack, cross, layers, chosen, store))
    return built


def _key(stack: str, cross: bool) -> str:
    return "cross" if cross else stack.rpartition(".")[2]


def _place(name: str, stack: str, cross: bool, layers: Sequence[AttentionLayer]) -> list[tuple[int, int]]:
    """(place of the layer in its chapter, head) that a name says, if it is one of these."""
    words = name.split()
    *part, last = words or [""]
    layer, _, head = last.partition(".")
    if len(part) > 1 or (part and part[0] != _key(stack, cross)) or not (layer.isdecimal() and head.isdecimal()):
        return []
    return [(i, int(head)) for i, each in enumerate(layers) if each.layer == int(layer) and int(head) < each.heads]


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
        self.name, self.cross, self.stack = _key(stack, cross), cross, stack
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
                    self._add_map(f"{place}.{head}", first, [(each, tiled(each)) for each in levels])
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
        size = max(1, 256 // step) * step
        rows: list[list[np.ndarray]] = [[] for _ in range(layer.heads)]
        links: list[tuple[np.ndarray, np.ndarray]] = []
        for _, weights in layer.tiles(size):
            cells = quantised(weights[0])
            if max(self.shape) > LINKS:
                links.append(strongest(weights[0], 16 if max(self.shape) <= 2048 else 8))
            for head in range(layer.heads):
                part = cells[head]
                for _ in range(first):
                    part = halved(part)
                rows[head].append(part)
        for head in range(layer.heads if links else 0):
            keys = np.concatenate([each[0][head] for each in links]).astype("<u2")
            values = np.concatenate([each[1][head] for each in links])
            # Column by column: what stands beside each other is alike, and deflates better.
            self.links[place, head] = packed(keys.T, values.T)
        return [[np.concatenate(parts)] for parts in rows]

    def _add_map(self, key: str, first: int, levels: list[tuple[Cells, tuple[bytes, list[int]]]]) -> None:
        known = self.described["maps"].get(key)
        added = self.store.put_levels(levels)
        self.described["maps"][key] = {"first": first, "levels": added + (known["levels"] if known else [])}

    def _try_map(self, key: str, cells: Cells, whatever: bool = False) -> bool:
        """Adds the levels of a matrix that are not there yet, if there is room."""
        known = self.described["maps"].get(key)
        until = known["first"] if known else 99
        levels = [(each, tiled(each)) for each in pyramid(cells)[:until]]
        if not whatever and not self.store.fits(sum(len(data) for _, (data, _) in levels)):
            return False
        self._add_map(key, 0, levels)
        return True

    def wanted(self, heard: Progress) -> Iterator[Step]:
        """The heads that were asked for, whether there is room or not."""
        for place, head in self.chosen:

            def add(place: int = place, head: int = head) -> None:
                heard(f"{self.name} {self.layers[place].layer}.{head}: full")
                self._try_map(f"{place}.{head}", self._cells(place, head), whatever=True)
                self._detail(place, head, whatever=True)
                if (place, head) in self.links:
                    self._link(place, head)

            yield add

    def full(self, heard: Progress) -> Iterator[Step]:
        """Whole heads, those that look at the fewest tokens first."""
        failed = 0

        def add(place: int, head: int) -> None:
            nonlocal failed
            key = f"{place}.{head}"
            known = self.described["maps"].get(key)
            if (known and known["first"] == 0) or depth(self.shape) == 0:
                return
            if failed >= 3:  # each costs its computation
                self.missing["weights"] += 1
                return
            heard(f"{self.name} {self.layers[place].layer}.{head}: full")
            if not self._try_map(key, self._cells(place, head)):
                failed += 1
                self.missing["weights"] += 1

        for place, head in self.ranked:
            yield lambda place=place, head=head: add(place, head)  # type: ignore[misc]

    def strong(self, heard: Progress) -> Iterator[Step]:
        """The strongest links of each query of long texts."""

        def add(place: int, head: int) -> None:
            data = self.links[place, head]
            if f"{place}.{head}" not in self.described["links"] and self.store.fits(len(data)):
                self._link(place, head)

        for place, head in self.ranked if self.links else []:
            yield lambda place=place, head=head: add(place, head)  # type: ignore[misc]

    def _link(self, place: int, head: int) -> None:
        data = self.links[place, head]
        count = (16 if max(self.shape) <= 2048 else 8) if self.shape[1] >= 16 else self.shape[1]
        self.described["links"][f"{place}.{head}"] = {"blob": self.store.put(data), "count": count}

    @property
    def ranked(self) -> list[tuple[int, int]]:
        """The heads, those that look at the fewest tokens first."""
        spread = self.table["evenness"].nan_to_num(1.0).tolist()
        return [self.heads[i] for i in sorted(range(len(self.heads)), key=spread.__getitem__)]

    def paths(self, heard: Progress) -> Iterator[Step]:
        """Mean weights of each layer, and what is rolled out up to it."""
        if self.cross or self.shape[0] != self.shape[1] or self.shape[0] > ROLLOUT:
            return

        def add() -> None:
            heard(f"{self.name}: rollout")
            for place, matrix in enumerate(rollout(self.layers)[:, 0]):
                self._path(f"rollout.{place}", matrix)
            for place, layer in enumerate(self.layers):
                self._path(f"mean.{place}", with_residual(layer, 0.0)[0])

        yield add

    def _path(self, key: str, matrix: Tensor) -> None:
        """One matrix of a path: whole in short texts; an overview and the strongest links in long ones."""
        levels = pyramid(quantised(matrix))
        if max(self.shape) <= LINKS:
            self._try_map(key, levels[0])
            return
        first = depth(self.shape, COARSE)
        self._add_map(key, first, [(each, tiled(each)) for each in levels[first:]])
        if key.startswith("mean"):
            keys, values = strongest(matrix.unsqueeze(0), PATHS)
            blob = packed(keys[0].astype("<u2").T, values[0].T)
            if self.store.fits(len(blob)):
                self.described["links"][key] = {"blob": self.store.put(blob), "count": keys.shape[-1]}

    def best(self, heard: Progress) -> Iterator[Step]:
        """Everything of a few heads: those that look at the fewest tokens."""
        if max(self.shape) > 2048:
            return
        for place, head in self.ranked[:BEST]:
            yield lambda place=place, head=head: self._detail(place, head)  # type: ignore[misc]
            if depth(self.shape):
                yield lambda place=place, head=head: self._whole(place, head)  # type: ignore[misc]

    def _whole(self, place: int, head: int) -> None:
        self._try_map(f"{place}.{head}", self._cells(place, head))

    def details(self, heard: Progress) -> Iterator[Step]:
        """Queries, keys and values."""
        for place, head in self.ranked:
            if max(self.shape) <= 2048:
                yield lambda place=place, head=head: self._detail(place, head)  # type: ignore[misc]

    def _detail(self, place: int, head: int, whatever: bool = False) -> None:
        layer, key = self.layers[place], f"{place}.{head}"
        found = vectors(layer)
        if found is None or key in self.described["details"]:
            return
        group = head // (found.q.shape[0] // found.k.shape[0])
        arrays = {"q": found.q[head], "k": found.k[group], "v": found.v[group]}
        if found.plain_q is not None and found.plain_k is not None:
            arrays |= {"plainQ": found.plain_q[head], "plainK": found.plain_k[group]}
        most = 0 if whatever else sum(each.numel() for name, each in arrays.items() if name in ("q", "plainQ")) * 3 // 4
        if not self.store.fits(most) and not whatever:  # bytes of vectors hardly deflate: spared before they are made
            self.missing["query/key/value"] += 1
            return
        blobs = {name: packed(*signed_bytes(each)) for name, each in arrays.items()}
        # Heads of a group share their keys and values.
        others = [self.described["details"].get(f"{place}.{each}") for each in range(layer.heads)]
        shared: dict[str, Any] = next((each for each in others if each and each["group"] == group), {})
        new = {name: blob for name, blob in blobs.items() if name in ("q", "plainQ") or name not in shared}
        if not whatever and not self.store.fits(sum(map(len, new.values())) + 5 * self.shape[0]):
            self.missing["query/key/value"] += 1
            return
        described = {name: self.store.put(blob) for name, blob in new.items()}
        described |= {name: shared[name] for name in blobs if name not in new}
        sums = log_sums(layer, head).nan_to_num(neginf=-1e30).float().cpu().numpy().astype("<f4")
        described["sums"] = self.store.put_array(sums)
        self.described["details"][key] = {
            **described, "group": group, "size": found.q.shape[-1], "valueSize": found.v.shape[-1],
            "bias": self._bias(place, head),
        }  # fmt: skip

    def _bias(self, place: int, head: int) -> dict[str, Any] | None:
        if place not in (cache := self._biases):
            cache[place] = biases(self.layers[place])
        found = cache[place]
        if found is None:
            return None
        if found.by_distance is not None:
            return {"distances": self.store.put_array(found.by_distance[head])}
        return {"table": self.store.put_array(found.table[head].astype("<f4"))} if found.table is not None else {}

    @cached_property
    def _biases(self) -> dict[int, Any]:
        return {}

    def gradients(self, heard: Progress) -> Iterator[Step]:
        """Weights times gradients, as shares of each chapter's largest."""
        reading = self.reading
        if reading.network is None or max(self.shape) > GRADIENT:
            return

        def add() -> None:
            heard(f"{self.name}: gradients")
            found = self._gradients()
            parts = [found[layer.name][0] for layer in self.layers if layer.name in found]
            if len(parts) != len(self.layers):
                return
            most = max(float(part.abs().max()) for part in parts)
            self.described["gradientScale"] = most
            for place, head in self.ranked:
                shares = parts[place][head].abs() / max(most, 1e-30)
                cells = quantised(shares) // SHADES * SHADES
                if not self._try_map(f"gradient.{place}.{head}", cells):
                    self.missing["gradients"] += 1

        yield add

    def _gradients(self) -> dict[str, Tensor]:
        cached: dict[str, Tensor] | None = self.reading.__dict__.get("_gradients")
        if cached is None:
            assert self.reading.network is not None
            cached = gradient_weighted(self.reading.network, self.reading.inputs, self.reading.said)
            self.reading.__dict__["_gradients"] = cached
        return cached

    def _cells(self, place: int, head: int) -> Cells:
        parts = [quantised(weights[0, 0]) for _, weights in self.layers[place].tiles(512, slice(head, head + 1))]
        return np.concatenate(parts)

    def left_out(self) -> list[str]:
        """What there was no room for."""
        return [f"{what} of {count} of the {len(self.heads)} heads ({self.name})"
                for what, count in self.missing.items() if count]  # fmt: skip


def _lens(reading: Reading, store: Store, heard: Progress) -> dict[str, Any] | None:
    network = reading.network
    if network is None or network.vocabulary.size * len(reading.words) > LENS:
        return None
    heard(f"{reading.name}: logit lens")
    probabilities, ids = likeliest(network, 3, **reading.inputs)
    numbers = ids[:, 0].cpu()
    known = numbers.unique().tolist()
    place = torch.searchsorted(torch.tensor(known), numbers)
    return {
        "layers": ids.shape[0], "count": ids.shape[-1], "words": [reading.name_of(number) for number in known],
        "blob": store.put_array(place.numpy().astype("<i4"), quantised(probabilities[:, 0])),
    }  # fmt: skip


def _next(reading: Reading) -> list[list[object]]:
    """What the network says behind the text: the most probable tokens."""
    network = reading.network
    if network is None:
        return []
    with torch.no_grad():
        output = network(**reading.inputs)
        logits: Tensor = output.head(output.hidden[:, -1:])
    values, ids = logits[0, 0].float().softmax(-1).topk(min(5, logits.shape[-1]))
    return [
        [reading.name_of(number), round(value, 4)] for number, value in zip(ids.tolist(), values.tolist(), strict=True)
    ]
