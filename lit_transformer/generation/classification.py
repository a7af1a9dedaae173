"""Classes of texts, with their probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lit_transformer.blocks.pooling import LabelHead
from lit_transformer.errors import UserError
from lit_transformer.generation.runner import PADDING, evaluating
from lit_transformer.generation.text import Tokenizer, encode_known
from lit_transformer.networks.base import Network


class RowLayout(Protocol):
    """How the texts of a row become a sequence: ``data.layouts.Layout``."""

    splits_source: bool
    has_types: bool
    truncation: Any

    def extra(self, tokenizer: Any, fields: int) -> int:
        """Number of tokens that stand for no text."""
        ...

    def row(self, texts: Sequence[Any], tokenizer: Any, max_len: int) -> tuple[Any, Any]:
        """Token ids of a row, and which text each belongs to."""
        ...


@dataclass(frozen=True)
class Label:
    """The class of a text.

    Args:
        label: The most probable class.
        probabilities: Of all classes, by name.
    """

    label: str
    probabilities: dict[str, float]


class Classifier:
    """Texts to classes, as the network was trained.

    Args:
        network: The network.
        head: From its states to scores.
        classes: Their names.
        tokenizer: The one that it was trained with; knows the special tokens of the layout.
        layout: How texts become a sequence.
        cutting: The same layout, which cuts what is too long.
        fields: Names of the texts of a row.
    """

    def __init__(
        self,
        network: Network,
        head: LabelHead,
        classes: Sequence[str],
        tokenizer: Tokenizer,
        layout: RowLayout,
        cutting: RowLayout,
        fields: Sequence[str] = ("text",),
    ) -> None:
        self.network = network
        self.head = head
        self.classes = list(classes)
        self.tokenizer = tokenizer
        self.layout = layout
        self.cutting = cutting
        self.fields = list(fields)

    def row(self, texts: Sequence[str], cut: bool = False) -> tuple[Any, Any, int]:
        """Token ids of a row, which text each belongs to, and how many tokens were cut off.

        Args:
            texts: One for each field.
            cut: Cuts what is too long, also where training did not.

        Raises:
            UserError: A row that is too long or empty, or characters that the tokenizer does not know.
        """
        if len(texts) != len(self.fields):
            raise UserError(f"has {len(texts)} texts, and the model reads {len(self.fields)}: {', '.join(self.fields)}")
        encoded = [np.array(encode_known(self.tokenizer, text, "the text"), dtype=np.int64) for text in texts]
        whole = sum(map(len, encoded)) + self.layout.extra(self.tokenizer, len(texts))
        longest = self.network.vocabulary.max_len or whole
        layout = self.cutting if cut and self.layout.truncation is None else self.layout
        if whole > longest and layout.truncation is None:
            raise UserError(f"the text has {whole} tokens and the model reads {longest}")
        if not whole:
            raise UserError("the text is empty")
        tokens, types = layout.row(encoded, self.tokenizer, longest)
        return tokens, types, whole - len(tokens)

    @torch.inference_mode()
    def __call__(self, rows: Sequence[tuple[Any, Any]], batch_size: int = 32) -> Iterator[tuple[int, Label]]:
        """The class of each row with its number, as they are done: the shortest first.

        Args:
            rows: Token ids and types, from ``row``.
            batch_size: Most rows read together.
        """
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            with evaluating(self.network):
                probabilities = self._scores([rows[i] for i in batch]).double().softmax(-1).tolist()
            for i, row in zip(batch, probabilities, strict=True):
                best = max(range(len(row)), key=row.__getitem__)
                yield i, Label(self.classes[best], dict(zip(self.classes, row, strict=True)))

    def _scores(self, rows: Sequence[tuple[Any, Any]]) -> Tensor:
        """(B, C) scores of the classes of rows, padded on the right as in training."""
        device = next(self.network.parameters()).device
        width = max(len(tokens) for tokens, _ in rows)
        tokens, types = np.zeros((2, len(rows), width), dtype=np.int64)
        places = np.full((len(rows), width), PADDING, dtype=np.int64)
        for place, (ids, kinds) in enumerate(rows):
            tokens[place, : len(ids)], types[place, : len(ids)], places[place, : len(ids)] = ids, kinds, 0
        read, documents = torch.from_numpy(tokens).to(device), torch.from_numpy(places).to(device)
        padded = documents if bool((documents < 0).any()) else None
        given: dict[str, Any] = {"tokens": read, "documents": padded}
        if self.layout.has_types:
            given["types"] = torch.from_numpy(types).to(device)
        if self.layout.splits_source:
            begin = self.network.vocabulary.start_id or 0
            start = torch.full((len(rows), 1), begin, device=device)
            given, padded = {"tokens": start, "source": read, "source_documents": padded}, None
        scores: Tensor = self.head(self.network(**given).hidden, padded)
        return scores
