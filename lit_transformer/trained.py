"""From a checkpoint to the object that users hold."""

from pathlib import Path
from typing import Any

from lit_transformer.checkpoints.finding import resolve
from lit_transformer.checkpoints.label_head import load_label_head
from lit_transformer.checkpoints.loading import Loaded, Weights, load_network
from lit_transformer.data.layouts import KeepStart, Layout
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.errors import UserError
from lit_transformer.generation import Classifier, Model, Prompting, SourcePrompting, Translator, device_of
from lit_transformer.generation.text import encode_known
from lit_transformer.recipe.building import build

ANSWERS = ("Translation", "Denoising")
"""The tasks whose prompts are whole texts, ended by the token that ends texts."""


class ChatPrompting(Prompting):
    """The prompt is what a user says, laid out by the tokenizer's chat template; what follows is the answer.

    Args:
        tokenizer: The network's.
    """

    continues = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, prompt: str) -> list[int]:
        """See the base class."""
        from lit_transformer.data.chat import prompt_ids

        encode_known(self._tokenizer, prompt)
        return prompt_ids([{"role": "user", "content": prompt}], self._tokenizer)


class GapPrompting(SourcePrompting):
    """The prompt is a text with something missing; the names of special tokens in it (``<extra_id_0>``) are tokens.

    Args:
        tokenizer: The network's.
        end: The token that ends a text.
    """

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        super().__init__(tokenizer, end)
        self._tokenizer = tokenizer

    def __call__(self, prompt: str) -> list[int]:
        """See the base class."""
        from lit_transformer.data.chat import Piece, encoded

        ids: list[int] = encoded([Piece(prompt, False, False)], self._tokenizer)[0].tolist()
        return [*ids, self.end]


def load_model(path: str | Path, device: str = "auto", weights: Weights = "auto") -> Model:
    """See ``lit_transformer.load``."""
    place = device_of(device)
    loaded = load_network(resolve(path), weights)
    if loaded.tokenizer is None:
        raise UserError(f"{loaded.path}: holds no tokenizer: its network is no model of text")
    tokenizer = Tokenizer.from_json(loaded.tokenizer, name=f"{loaded.path}, its tokenizer")
    loaded.check_tokenizer(tokenizer)
    if tokenizer.size > loaded.vocabulary.size:
        raise UserError(
            f"{loaded.path}: its tokenizer has {tokenizer.size} tokens and its network {loaded.vocabulary.size}"
        )
    network = loaded.network.to(place)
    prompting: Prompting | None = None
    translator, classifier = None, None
    if loaded.task == "Classification":
        classifier = _classifier(loaded, tokenizer)
        classifier.head.to(place)
    elif loaded.task == "SupervisedFineTuning":
        prompting = ChatPrompting(tokenizer)
    elif loaded.task in ANSWERS or (loaded.task is None and network.reads_apart):
        source = _source_tokenizer(loaded, tokenizer)
        end = source.eos_id
        if end is None:
            raise UserError(f"{loaded.path}: its tokenizer has no token that ends a text")
        if loaded.task == "Denoising":
            prompting = GapPrompting(tokenizer, end)
        else:
            prompting = SourcePrompting(source, end)
            translator = Translator(network, tokenizer, source, end)
    return Model(network, tokenizer, prompting or Prompting(tokenizer, network.vocabulary), translator, classifier)


def _source_tokenizer(loaded: Loaded, tokenizer: Tokenizer) -> Tokenizer:
    size = loaded.vocabulary.source_size
    if size is None:
        return tokenizer
    text = loaded.checkpoint.get("source_tokenizer")
    if not isinstance(text, str):
        raise UserError(f"{loaded.path}: its sources have a vocabulary of their own, and it holds no tokenizer of them")
    source = Tokenizer.from_json(text, name=f"{loaded.path}, the tokenizer of its sources")
    if source.size > size:
        raise UserError(f"{loaded.path}: the tokenizer of its sources has {source.size} tokens and its network {size}")
    return source


def _classifier(loaded: Loaded, tokenizer: Tokenizer) -> Classifier:
    head, classes = load_label_head(loaded)
    config: Any = loaded.checkpoint.get("layout")
    layout = Layout() if config is None else build(Layout, config, source=str(loaded.path))
    # The same with another truncation; layouts keep nothing else of a row.
    cutting = type(layout)(KeepStart())
    fields = loaded.checkpoint.get("text_fields", ["text"])
    if not isinstance(fields, list) or not fields or not all(isinstance(name, str) for name in fields):
        raise UserError(f"{loaded.path}: its names of fields are no list of texts")
    return Classifier(loaded.network, head, classes, tokenizer, layout, cutting, fields)
