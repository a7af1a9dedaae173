"""Mistral (Jiang et al., 2023, arXiv:2310.06825): Llama with a sliding window."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.llama import Llama
from lit_transformer.interop.family import part
from lit_transformer.interop.section import Section, at
from lit_transformer.vocabulary import Vocabulary


def windowed(window: int | None) -> Section | None:
    """A causal mask over the last so many tokens; None: without a window."""
    if window is None:
        return None
    return part("And", masks=[part("Causal"), part("SlidingWindow", window=window)])


def window_of(mask: Any) -> int | None:
    """The window of a causal mask; None: it has none."""
    for each in at(mask, "masks", []):
        if at(each, "class_path") == "SlidingWindow":
            return int(each["window"])
    return None


class Mistral(Llama):
    """Llama whose tokens see the last few thousand."""

    model_type = "mistral"
    architecture = "MistralForCausalLM"
    default_window: int | None = 4096

    def mask(self, config: Config) -> Section | None:
        """See the base class."""
        given = "sliding_window" in config.values
        return windowed(config.size("sliding_window", default=None if given else self.default_window))

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        return super().config(section, vocabulary) | {"sliding_window": window_of(at(section, "layer.0.mask"))}
