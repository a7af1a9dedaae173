"""What is added to a chapter of the explorer as long as there is room, step by step."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from lit_transformer.analysis.chapter import COARSE, LINKS, Chapter
from lit_transformer.analysis.compact import (
    depth,
    packed,
    pyramid,
    quantised,
    signed_bytes,
    strongest,
    tiled,
)
from lit_transformer.analysis.details import biases, log_sums, vectors
from lit_transformer.analysis.rollout import rollout, with_residual

Progress = Callable[[str], None]
Step = Callable[[], None]

PATHS = 32
"""How many of the strongest links of a layer's mean are kept of each query of a long text."""
SHADES = 17
"""Gradients are kept in 16 shades, which deflate to half of what 256 do."""
BEST = 4
"""Heads that everything is kept of before others are filled up."""
ROLLOUT, GRADIENT = 1024, 512
"""Longest texts that are rolled out and differentiated."""


def wanted(chapter: Chapter, heard: Progress) -> Iterator[Step]:
    """The heads that were asked for, whether there is room or not."""
    for place, head in chapter.chosen:

        def add(place: int = place, head: int = head) -> None:
            heard(f"{chapter.name} {chapter.layers[place].layer}.{head}: full")
            chapter.try_map(f"{place}.{head}", chapter.cells(place, head), whatever=True)
            _detail(chapter, place, head, whatever=True)
            if (place, head) in chapter.links:
                chapter.link(place, head)

        yield add


def strong(chapter: Chapter, heard: Progress) -> Iterator[Step]:
    """The strongest links of each query of long texts."""

    def add(place: int, head: int) -> None:
        data = chapter.links[place, head]
        if f"{place}.{head}" not in chapter.described["links"] and chapter.store.fits(len(data)):
            chapter.link(place, head)

    for place, head in chapter.ranked if chapter.links else []:
        yield lambda place=place, head=head: add(place, head)  # type: ignore[misc]


def paths(chapter: Chapter, heard: Progress) -> Iterator[Step]:
    """Mean weights of each layer, and what is rolled out up to it."""
    if chapter.cross or chapter.shape[0] != chapter.shape[1] or chapter.shape[0] > ROLLOUT:
        return

    def add() -> None:
        heard(f"{chapter.name}: rollout")
        for place, matrix in enumerate(rollout(chapter.layers)[:, 0]):
            _path(chapter, f"rollout.{place}", matrix)
        for place, layer in enumerate(chapter.layers):
            _path(chapter, f"mean.{place}", with_residual(layer, 0.0)[0])

    yield add


def _path(chapter: Chapter, key: str, matrix: Tensor) -> None:
    """One matrix of a path: whole in short texts; an overview and the strongest links in long ones."""
    levels = pyramid(quantised(matrix))
    if max(chapter.shape) <= LINKS:
        chapter.try_map(key, levels[0])
        return
    first = depth(chapter.shape, COARSE)
    chapter.add_map(key, first, [(each, tiled(each)) for each in levels[first:]])
    if key.startswith("mean"):
        keys, values = strongest(matrix.unsqueeze(0), PATHS)
        blob = packed(keys[0].astype("<u2").T, values[0].T)
        if chapter.store.fits(len(blob)):
            chapter.described["links"][key] = {"blob": chapter.store.put(blob), "count": keys.shape[-1]}


def best(chapter: Chapter, heard: Progress) -> Iterator[Step]:
    """Everything of a few heads: those that look at the fewest tokens."""
    if max(chapter.shape) > 2048:
        return
    for place, head in chapter.ranked[:BEST]:
        yield lambda place=place, head=head: _detail(chapter, place, head)  # type: ignore[misc]
        if depth(chapter.shape):
            yield lambda place=place, head=head: _whole(chapter, place, head)  # type: ignore[misc]


def _whole(chapter: Chapter, place: int, head: int) -> None:
    chapter.try_map(f"{place}.{head}", chapter.cells(place, head))


def full(chapter: Chapter, heard: Progress) -> Iterator[Step]:
    """Whole heads, those that look at the fewest tokens first."""
    failed = 0

    def add(place: int, head: int) -> None:
        nonlocal failed
        key = f"{place}.{head}"
        known = chapter.described["maps"].get(key)
        if (known and known["first"] == 0) or depth(chapter.shape) == 0:
            return
        if failed >= 3:  # each costs its computation
            chapter.missing["weights"] += 1
            return
        heard(f"{chapter.name} {chapter.layers[place].layer}.{head}: full")
        if not chapter.try_map(key, chapter.cells(place, head)):
            failed += 1
            chapter.missing["weights"] += 1

    for place, head in chapter.ranked:
        yield lambda place=place, head=head: add(place, head)  # type: ignore[misc]


def gradients(chapter: Chapter, heard: Progress) -> Iterator[Step]:
    """Weights times gradients, as shares of each chapter's largest."""
    reading = chapter.reading
    if reading.network is None or max(chapter.shape) > GRADIENT:
        return

    def add() -> None:
        heard(f"{chapter.name}: gradients")
        found = chapter.reading.gradients
        parts = [found[layer.name][0] for layer in chapter.layers if layer.name in found]
        if len(parts) != len(chapter.layers):
            return
        most = max(float(part.abs().max()) for part in parts)
        chapter.described["gradientScale"] = most
        for place, head in chapter.ranked:
            shares = parts[place][head].abs() / max(most, 1e-30)
            cells = quantised(shares) // SHADES * SHADES
            if not chapter.try_map(f"gradient.{place}.{head}", cells):
                chapter.missing["gradients"] += 1

    yield add


def details(chapter: Chapter, heard: Progress) -> Iterator[Step]:
    """Queries, keys and values."""
    for place, head in chapter.ranked:
        if max(chapter.shape) <= 2048:
            yield lambda place=place, head=head: _detail(chapter, place, head)  # type: ignore[misc]


def _detail(chapter: Chapter, place: int, head: int, whatever: bool = False) -> None:
    layer, key = chapter.layers[place], f"{place}.{head}"
    found = vectors(layer)
    if found is None or key in chapter.described["details"]:
        return
    group = head // (found.q.shape[0] // found.k.shape[0])
    arrays = {"q": found.q[head], "k": found.k[group], "v": found.v[group]}
    if found.plain_q is not None and found.plain_k is not None:
        arrays |= {"plainQ": found.plain_q[head], "plainK": found.plain_k[group]}
    most = 0 if whatever else sum(each.numel() for name, each in arrays.items() if name in ("q", "plainQ")) * 3 // 4
    if not chapter.store.fits(most) and not whatever:  # bytes of vectors hardly deflate: spared before they are made
        chapter.missing["query/key/value"] += 1
        return
    blobs = {name: packed(*signed_bytes(each)) for name, each in arrays.items()}
    # Heads of a group share their keys and values.
    others = [chapter.described["details"].get(f"{place}.{each}") for each in range(layer.heads)]
    shared: dict[str, Any] = next((each for each in others if each and each["group"] == group), {})
    new = {name: blob for name, blob in blobs.items() if name in ("q", "plainQ") or name not in shared}
    if not whatever and not chapter.store.fits(sum(map(len, new.values())) + 5 * chapter.shape[0]):
        chapter.missing["query/key/value"] += 1
        return
    described = {name: chapter.store.put(blob) for name, blob in new.items()}
    described |= {name: shared[name] for name in blobs if name not in new}
    sums = log_sums(layer, head).nan_to_num(neginf=-1e30).float().cpu().numpy().astype("<f4")
    described["sums"] = chapter.store.put_array(sums)
    chapter.described["details"][key] = {
        **described, "group": group, "size": found.q.shape[-1], "valueSize": found.v.shape[-1],
        "bias": _bias(chapter, place, head),
    }  # fmt: skip


def _bias(chapter: Chapter, place: int, head: int) -> dict[str, Any] | None:
    if place not in (cache := chapter.biases):
        cache[place] = biases(chapter.layers[place])
    found = cache[place]
    if found is None:
        return None
    if found.by_distance is not None:
        return {"distances": chapter.store.put_array(found.by_distance[head])}
    return {"table": chapter.store.put_array(found.table[head].astype("<f4"))} if found.table is not None else {}


ADDITIONS = (wanted, strong, paths, best, full, gradients, details)
"""The most telling first."""
