"""What a family of pre-trained models is: a configuration in both directions, and a table of its weights."""

import re
from collections.abc import Collection
from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry
from lit_transformer.vocabulary import Vocabulary


class Family:
    """Base of the families; one file each.

    ``config(network(c))`` must say the same function as ``c``, and ``network(config(s))`` the same as ``s`` wherever
    the layout can express ``s``: a model goes out only if reading it back gives the network that went out.
    """

    model_type: str
    """The family's name in ``config.json``."""
    architecture: str
    """The class that weights go out to."""
    auto_class = "AutoModelForCausalLM"
    """What loads it there."""
    base: str | None = None
    """The class without a head, where the family is used without one."""
    prefix: str = ""
    """What a model with a head puts before the names of its body, and the body alone does not."""
    ignored: tuple[str, ...] = ()
    """Patterns of names that hold no weights: buffers, tables that are computed."""
    dropped: tuple[str, ...] = ()
    """Patterns of names of heads that our networks have no place for; said when they are left out."""
    task = "LanguageModeling"
    """What a run folder is made for."""

    def network(self, config: Config) -> Section:
        """The ``network`` section of a recipe."""
        raise NotImplementedError

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """The configuration of a network in its canonical form; what it cannot say is left out and found out later."""
        raise NotImplementedError

    def table(self, config: Config) -> list[Entry]:
        """The table of weights."""
        raise NotImplementedError

    def aliases(self, config: Config) -> dict[str, str]:
        """Names that are said a second time for a weight that is there under another: the other."""
        return {}

    def left_out(self, config: Config) -> tuple[str, ...]:
        """Patterns of names that our networks have no place for."""
        return self.dropped

    def renamed(self, names: Collection[str]) -> dict[str, str]:
        """The names of a file by today's custom, as older files have others."""
        bare = bool(self.prefix) and not any(name.startswith(self.prefix) for name in names)
        today = {name: (self.prefix if bare else "") + name for name in names}
        old = re.compile(r"(?<=LayerNorm)\.(gamma|beta)$")
        kinds = {"gamma": ".weight", "beta": ".bias"}
        return {old.sub(lambda found: kinds[found[1]], name): there for there, name in today.items()}

    def start_id(self, config: Config, generation: Config) -> int | None:
        """What a decoder beside an encoder begins with; None: not that kind, or not known."""
        return None


def pattern(layers: list[Section]) -> Section | list[Section]:
    """A list of layers as a recipe says it: the shortest pattern that repeats."""
    for period in range(1, len(layers) + 1):
        if all(layer == layers[i % period] for i, layer in enumerate(layers)):
            return layers[0] if period == 1 else layers[:period]
    return layers


def part(name: str, **arguments: Any) -> Section:
    """A class and its arguments; those that are None are left out."""
    return {"class_path": name, **{key: value for key, value in arguments.items() if value is not None}}


def common(section: Section, vocabulary: Vocabulary, **names: str) -> dict[str, Any]:
    """The sizes under a family's own names (``d_model="hidden_size"``), and what all configurations have."""
    dims = section["dims"]
    result: dict[str, Any] = {"vocab_size": vocabulary.size}
    result |= {theirs: dims[ours] for ours, theirs in names.items() if dims[ours] is not None}
    tokens = {"bos_token_id": vocabulary.bos_id, "eos_token_id": vocabulary.eos_id, "pad_token_id": vocabulary.pad_id}
    return result | tokens


ACTIVATIONS = {
    "gelu": part("GELU", approximate="none"),
    "gelu_new": part("GELU", approximate="tanh"),
    "gelu_pytorch_tanh": part("GELU", approximate="tanh"),
    "gelu_fast": part("GELU", approximate="tanh"),
    "gelu_python_tanh": part("GELU", approximate="tanh"),
    "gelu_python": part("GELU", approximate="none"),
    "relu": part("ReLU"),
    "relu2": part("SquaredReLU"),
    "silu": part("SiLU"),
    "swish": part("SiLU"),
    "sigmoid": part("Sigmoid"),
    "tanh": part("Tanh"),
    "linear": part("Identity"),
}


def activation(config: Config, *names: str, default: str) -> Section:
    """The activation that a configuration names."""
    name = config.text(*names, default=default)
    if name not in ACTIVATIONS:
        raise config.fault(names[0], f"is {name!r}, and there is no such activation; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def activation_name(section: Section, path: str, default: str) -> str:
    """The name of the activation at a key path of a section."""
    found = at(section, path)
    if isinstance(found, dict):
        wanted = {key: value for key, value in found.items() if value is not None}
        names = [name for name, spec in ACTIVATIONS.items() if spec == wanted]
        if names:
            return default if default in names else names[0]
    return default


def gated(config: Config, act: Section, bias: bool = False) -> Section:
    """A gated feed-forward as a recipe says it."""
    if act == part("SiLU"):
        return part("SwiGLU", bias=bias or None)
    return part("Gated", activation=act, bias=bias or None)
