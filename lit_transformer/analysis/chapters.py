"""The chapters of the explorer: what one network did with a text, stack by stack."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_transformer.analysis.chapter import Chapter, part_of
from lit_transformer.analysis.compact import (
    Store,
    quantised,
)
from lit_transformer.analysis.lens import likeliest
from lit_transformer.analysis.reading import Reading
from lit_transformer.analysis.record import AttentionLayer
from lit_transformer.errors import UserError

Progress = Callable[[str], None]

LENS = 200_000_000
"""Most logits that a layer's lens holds."""
BEHIND, NEXT = 3, 5
"""Tokens that are shown behind each layer, and behind the text."""


def unheard(what: str) -> None:
    """Tells nobody."""


def chapters(reading: Reading, wanted: Sequence[str], store: Store, heard: Progress) -> list[Chapter]:
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
    model |= _said(reading, store, heard)
    for name in wanted:
        if not any(_place(name, stack, cross, layers) for (stack, cross), layers in groups.items()):
            there = "; ".join(f"{part_of(*group)} 0.0 to {layers[-1].layer}.{layers[-1].heads - 1}"
                              for group, layers in groups.items())  # fmt: skip
            raise UserError(f"head {name!r}: there is none in {reading.name}; a head is LAYER.HEAD, there are {there}")
    built = []
    for (stack, cross), layers in groups.items():
        heard(f"{reading.name}: {part_of(stack, cross)}")
        chosen = [place for name in wanted for place in _place(name, stack, cross, layers)]
        built.append(Chapter(reading, model, stack, cross, layers, chosen, store))
    return built


def _place(name: str, stack: str, cross: bool, layers: Sequence[AttentionLayer]) -> list[tuple[int, int]]:
    """(place of the layer in its chapter, head) that a name says, if it is one of these."""
    words = name.split()
    *part, last = words or [""]
    layer, _, head = last.partition(".")
    if len(part) > 1 or (part and part[0] != part_of(stack, cross)) or not (layer.isdecimal() and head.isdecimal()):
        return []
    return [(i, int(head)) for i, each in enumerate(layers) if each.layer == int(layer) and int(head) < each.heads]


def _said(reading: Reading, store: Store, heard: Progress) -> dict[str, Any]:
    """What the network would say behind each layer (the lens), and what it says behind the text.

    Both are read off one more run of the network, which long texts make the dearest part of all.
    """
    network = reading.network
    if network is None:
        return {"lens": None, "next": []}
    heard(f"{reading.name}: what it says")
    if network.vocabulary.size * len(reading.words) > LENS:
        with torch.no_grad():
            output = network(**reading.inputs)
            logits: Tensor = output.head(output.hidden[:, -1:])
        values, numbers = logits[0, 0].float().softmax(-1).topk(min(NEXT, logits.shape[-1]))
        return {"lens": None, "next": _named(reading, values, numbers)}
    probabilities, ids = (each[:, 0].cpu() for each in likeliest(network, NEXT, **reading.inputs))
    shown = ids[..., :BEHIND]
    known = shown.unique().tolist()
    place = torch.searchsorted(torch.tensor(known), shown.contiguous())
    lens = {
        "layers": shown.shape[0], "count": shown.shape[-1], "words": [reading.name_of(number) for number in known],
        "blob": store.put_array(place.numpy().astype("<i4"), quantised(probabilities[..., :BEHIND])),
    }  # fmt: skip
    return {"lens": lens, "next": _named(reading, probabilities[-1, -1], ids[-1, -1])}


def _named(reading: Reading, values: Tensor, ids: Tensor) -> list[list[object]]:
    return [
        [reading.name_of(number), round(value, 4)] for number, value in zip(ids.tolist(), values.tolist(), strict=True)
    ]
