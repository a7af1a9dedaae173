"""All that is measured of the heads of a reading."""

from collections.abc import Sequence

import torch

from lit_transformer.analysis.head_metrics import STANDARD, HeadTable, Separators, head_metrics
from lit_transformer.analysis.importance import by_gradient
from lit_transformer.analysis.reading import Reading
from lit_transformer.analysis.record import AttentionLayer, AttentionRecord

LONGEST = 2048
"""Most tokens of a text that the importance of heads is found of: it takes a backward pass."""


def measured(reading: Reading, layers: Sequence[AttentionLayer] | None = None) -> HeadTable:
    """The metrics of heads, with separators where the text has some, and importance where it can be found.

    Importance is by gradient: how much what the network says (the log-probability of its answer) changes with the
    head's strength.

    Args:
        reading: What was read.
        layers: Which attentions; left out: all.
    """
    texts = [text for text in (reading.tokens, reading.source) if text is not None]
    signs = {token for text in texts for token in text.unique().tolist() if not _has_letters(reading.name_of(token))}
    metrics = [*STANDARD, Separators(signs)] if signs else list(STANDARD)
    source = None if reading.source is None else reading.source.unsqueeze(0)
    record = AttentionRecord(list(reading.record.layers if layers is None else layers))
    table = head_metrics(record, reading.tokens.unsqueeze(0), source, metrics)
    importance = _importance(reading)
    if not any(row in importance for row in table.rows):
        return table
    column = torch.tensor([importance.get(row, torch.nan) for row in table.rows], dtype=table.values.dtype)
    return HeadTable(table.rows, [*table.columns, "importance"], torch.cat((table.values, column.unsqueeze(1)), dim=1))


def _importance(reading: Reading) -> dict[tuple[str, int], float]:
    network = reading.network
    if network is None or max(len(reading.words), len(reading.source_words)) > LONGEST:
        return {}
    if reading.importance is None:
        reading.importance = by_gradient(network, lambda: reading.said(network(**reading.inputs)))
    return reading.importance


def _has_letters(word: str) -> bool:
    return any(sign.isalnum() for sign in word)
