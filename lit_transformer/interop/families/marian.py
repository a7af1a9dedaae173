"""Marian (Junczys-Dowmunt et al., 2018, arXiv:1804.00344): the translators of OPUS-MT."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.bart import Bart
from lit_transformer.interop.family import part
from lit_transformer.interop.section import Section
from lit_transformer.interop.table import Entry
from lit_transformer.vocabulary import Vocabulary


class Marian(Bart):
    """BART with waves for positions, which are computed, and without a norm of the embedding."""

    model_type = "marian"
    architecture = "MarianMTModel"
    ignored = (r"model\.(encoder|decoder)\.embed_positions\.weight",)

    def network(self, config: Config) -> Section:
        """See the base class."""
        config.refuse("share_encoder_decoder_embeddings", True)
        config.refuse("tie_word_embeddings", True)
        config.refuse("static_position_embeddings", True)
        config.refuse("normalize_embedding", False)
        config.refuse("normalize_before", False)
        config.refuse("decoder_vocab_size", config.size("vocab_size"))
        return super().network(config)

    def position(self, config: Config) -> Section:
        """Their i-th wave turns by 10000^(-2i / D), ours by base^(-i / (D / 2 - 1))."""
        half = config.size("d_model") // 2
        return part("Sinusoidal", base=10_000.0 ** ((half - 1) / half))

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        result = super().config(section, vocabulary)
        more = {"share_encoder_decoder_embeddings": True, "static_position_embeddings": True}
        return result | more | {"decoder_vocab_size": result["vocab_size"]}

    def position_entries(self, ours: str, theirs: str) -> list[Entry]:
        """See the base class."""
        return []
