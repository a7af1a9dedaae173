"""A text that a network has read, with all that its attention did: what the explorer shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from lit_transformer.analysis.gradients import Said, confidence, gradient_weighted
from lit_transformer.analysis.record import AttentionRecord, record_attention
from lit_transformer.errors import UserError
from lit_transformer.generation.classification import Classifier
from lit_transformer.generation.model import Model
from lit_transformer.generation.runner import Runner, evaluating
from lit_transformer.generation.text import encode_known
from lit_transformer.networks.base import Network, Output
from lit_transformer.networks.encoder_only import EncoderOnly
from lit_transformer.networks.prefix_lm import PrefixLM


class Names(Protocol):
    """What naming tokens needs of a tokenizer."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        ...


@dataclass
class Reading:
    """One text, read by one network.

    Args:
        name: What the network is called.
        record: What its attention did.
        tokens: Ids (T,) that the decoder, or the only stack, read.
        words: How they are written.
        source: Ids (S,) that the encoder read, where there is one apart.
        source_words: How they are written.
        parts: Which text each token belongs to.
        given: Number of tokens that were given; the ones behind them were generated.
        network: The network; None for a foreign model.
        inputs: What one forward pass over the whole text is called with.
        name_of: How a token is written.
        said: The number that gradients are taken of.
        importance: Of each head, by path of the attention and number, once it was found.
    """

    name: str
    record: AttentionRecord
    tokens: Tensor
    words: list[str]
    source: Tensor | None = None
    source_words: list[str] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    given: int = 0
    network: Network | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    name_of: Callable[[int], str] = str
    said: Said = confidence
    importance: dict[tuple[str, int], float] | None = None

    def __post_init__(self) -> None:
        if not self.record.layers:
            raise UserError(f"{self.name}: none of its attentions has weights to show (linear attention has none)")
        self.given = self.given or len(self.words)
        self.parts = self.parts or [0] * len(self.words)

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Weights times gradients of each attention, by its path; of our own networks only."""
        return {} if self.network is None else gradient_weighted(self.network, self.inputs, self.said)


def read(model: Model, text: str, second: str | None = None, generate: int = 0, name: str = "model") -> Reading:
    """Has a model read a text, as it reads texts when it is used, and records its attention.

    Args:
        model: The model.
        text: The text; for an encoder-decoder and a model that answers, the source.
        second: The answer of such a model (left out: it writes its own); the second text of a row for a classifier or
            an encoder; for a decoder, what is read behind the text.
        generate: Number of tokens that a model that writes adds, always the most probable one, with a cache.
        name: What the model is called.

    Raises:
        UserError: An empty text, one that is too long or cannot be encoded, or a model that cannot do what is asked.
    """
    for what, value in (("the text", text), ("the second text", second)):
        if value is not None and not value.strip():
            raise UserError(f"{what} is empty: give one with at least a word")
    with torch.no_grad(), evaluating(model.network):
        prepared = _prepared(model, text, second)
        return prepared.read(name, generate)


@dataclass
class _Prepared:
    """What is to be read."""

    network: Network
    prompt: list[int]
    answer: list[int] | None
    words_of: Callable[[int], str]
    source_words_of: Callable[[int], str]
    parts: list[int] = field(default_factory=list)
    extra: dict[str, Tensor] = field(default_factory=dict)
    said: Said = confidence

    def read(self, name: str, generate: int) -> Reading:
        network = self.network
        device = next(network.parameters()).device
        writes = not isinstance(network, EncoderOnly)
        apart = network.reads_apart
        opening = network.opening(self.prompt) if writes else self.prompt
        longest = network.dims.max_len
        if longest is not None and len(self.prompt) > longest:
            raise UserError(f"the text has {len(self.prompt)} tokens and the model reads {longest}: shorten it")
        given = opening + (self.answer or [])
        if longest is not None and len(given) + max(0, generate - 1) > longest:
            most = longest - len(given) + 1
            raise UserError(
                f"the text has {len(given)} tokens and the model reads {longest}: generate at most {most}"
                if most > 0
                else f"the text has {len(given)} tokens with its answer and the model reads {longest}: shorten it"
            )
        if generate and not writes:
            raise UserError(f"{type(network).__name__} writes no text: leave out the tokens to generate")
        if apart and self.answer is None and not generate:
            generate = (longest or 2 * len(self.prompt)) - len(given)  # its own answer, to its end
        source = torch.tensor([self.prompt], device=device) if apart else None
        record: AttentionRecord
        if generate:
            with record_attention(network) as record:
                tokens = _decoded(network, self.prompt, given[len(opening) :], generate)
        else:
            tokens = given
        row = torch.tensor([tokens], device=device)
        inputs: dict[str, Any] = {"tokens": row, **self.extra}
        if source is not None:
            inputs["source"] = source
        if isinstance(network, PrefixLM):
            inputs["prefix"] = torch.arange(len(tokens), device=device).unsqueeze(0) < len(self.prompt)
        if not generate:
            with record_attention(network) as record:
                network(**inputs)
        words = [self.words_of(token) for token in tokens]
        source_words = [self.source_words_of(token) for token in self.prompt] if apart else []
        parts = self.parts if len(self.parts) == len(tokens) else [0] * len(tokens)
        if self.answer is not None and not apart and not self.parts:
            parts = [int(i >= len(self.prompt)) for i in range(len(tokens))]
        return Reading(
            name, record, row[0].cpu(), words, None if source is None else source[0].cpu(), source_words, parts,
            len(given), network, inputs, self.words_of, self.said,
        )  # fmt: skip


def _decoded(network: Network, prompt: list[int], answer: list[int], count: int) -> list[int]:
    """The tokens that the network then holds: what it was given and the most probable ones after it, one at a time."""
    opening = network.opening(prompt)
    runner = Runner(network)
    logits = runner.prefill([prompt], len(opening) + len(answer) + count)
    tokens = list(opening)
    for token in answer:
        logits = runner.step(torch.tensor([token], device=runner.device))
        tokens.append(token)
    for _ in range(count - 1):
        token = int(logits[0].argmax())
        if token == network.vocabulary.eos_id:
            break
        logits = runner.step(torch.tensor([token], device=runner.device))
        tokens.append(token)
    return tokens


def _prepared(model: Model, text: str, second: str | None) -> _Prepared:
    network, tokenizer = model.network, model.tokenizer
    words_of = namer(tokenizer)
    source_words_of = namer(getattr(model.prompting, "tokenizer", tokenizer))
    classifier = _classifier_of(model)
    if classifier is not None:
        return _classified(model, classifier, [text] if second is None else [text, second], words_of)
    if isinstance(network, EncoderOnly):
        texts = [encode_known(tokenizer, each, "the text") for each in (text, second) if each is not None]
        row, types = joined(tokenizer, texts)
        return _Prepared(network, row, None, words_of, words_of, types)
    prompt = model.prompting(text)
    answer = None if second is None else encode_known(tokenizer, second, "the second text")
    if answer is not None and not network.reads_apart and model.prompting.continues:
        return _Prepared(network, prompt + answer, None, words_of, words_of, [0] * len(prompt) + [1] * len(answer))
    if answer is not None and not network.reads_apart:
        return _Prepared(network, prompt, answer, words_of, words_of)
    return _Prepared(network, prompt, answer, words_of, source_words_of)


def _classifier_of(model: Model) -> Classifier | None:
    try:
        return model.classifier
    except UserError:
        return None


def _classified(model: Model, classifier: Classifier, texts: list[str], words_of: Callable[[int], str]) -> _Prepared:
    tokens, types, _ = classifier.row(texts)
    row, kinds = [int(each) for each in tokens], [int(each) for each in types]
    device = next(model.network.parameters()).device
    extra = {"types": torch.tensor([kinds], device=device)} if classifier.layout.has_types else {}
    answer: list[int] | None = [] if model.network.reads_apart else None

    def said(output: Output) -> Tensor:
        """The log-probability of the class that it finds."""
        scores: Tensor = classifier.head(output.hidden, None)
        return scores.float().log_softmax(-1).amax(-1).sum()

    return _Prepared(model.network, row, answer, words_of, words_of, kinds, extra, said)


def joined(tokenizer: Any, texts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """The texts of a row as one sequence, and which text each token belongs to: ``<cls> first <sep> second <sep>``."""
    start, end = (getattr(tokenizer, name, None) for name in ("cls_id", "sep_id"))
    row, types = ([] if start is None else [start]), ([] if start is None else [0])
    for number, text in enumerate(texts):
        piece = [*text] + ([] if end is None else [end])
        row += piece
        types += [number] * len(piece)
    return row, types


def namer(tokenizer: Any) -> Callable[[int], str]:
    """How a token of this tokenizer is written: with the blank before it, and special ones by their names."""
    backend = getattr(tokenizer, "backend", tokenizer)
    name_of = getattr(backend, "id_to_token", None) or getattr(backend, "convert_ids_to_tokens", None)

    def name(token: int) -> str:
        raw = name_of(int(token)) if name_of is not None else None
        text = tokenizer.decode([int(token)])
        if not text or "\N{REPLACEMENT CHARACTER}" in text:
            return str(raw if raw else f"#{token}")
        if raw is not None and raw.startswith("\N{LOWER ONE EIGHTH BLOCK}") and not text.startswith(" "):
            return f" {text}"
        return str(raw) if raw is not None and raw.startswith("##") else str(text)

    return name
