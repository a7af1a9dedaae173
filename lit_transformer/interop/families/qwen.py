"""Qwen 2 and 3 (2024, arXiv:2407.10671; 2025, arXiv:2505.09388)."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.llama import Llama
from lit_transformer.interop.families.mistral import window_of, windowed
from lit_transformer.interop.family import part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, same
from lit_transformer.vocabulary import Vocabulary


class Qwen2(Llama):
    """Llama whose queries, keys and values have a bias; later layers may have a window."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"

    def attention(self, config: Config, i: int) -> Section:
        """See the base class."""
        return part("Attention", bias=True, output_bias=False, dropout=self.dropout(config))

    def own_mask(self, config: Config, i: int) -> Section | None:
        """See the base class."""
        if not config.flag("use_sliding_window", default=False):
            return None
        kinds = config.texts("layer_types", config.size("num_hidden_layers"))
        slides = kinds[i] == "sliding_attention" if kinds else i >= config.count("max_window_layers", default=28)
        return windowed(config.size("sliding_window", default=4096)) if slides else None

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        windows = [window_of(layer["mask"]) for layer in section["layer"]]
        kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
        some = [window for window in windows if window is not None]
        return super().config(section, vocabulary) | {
            "use_sliding_window": bool(some),
            "sliding_window": some[0] if some else None,
            "layer_types": kinds,
            "max_window_layers": kinds.index("sliding_attention") if some else len(kinds),
        }


class Qwen3(Qwen2):
    """Qwen2 with norms of queries and keys in place of their bias."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"

    def dims(self, config: Config) -> Section:
        """See the base class."""
        return super().dims(config) | {"head_dim": config.size("head_dim", default=128)}

    def attention(self, config: Config, i: int) -> Section:
        """See the base class."""
        norm = part("RMSNorm", eps=config.number("rms_norm_eps", default=self.eps))
        bias = config.flag("attention_bias", default=False)
        return part("Attention", bias=bias or None, dropout=self.dropout(config), qk_norm=norm)

    def attention_entries(self, config: Config, i: int, ours: str, theirs: str) -> list[Entry]:
        """See the base class."""
        entries = super().attention_entries(config, i, ours, theirs)
        return entries + [
            same(f"{ours}.query_norm.weight", f"{theirs}.q_norm.weight"),
            same(f"{ours}.key_norm.weight", f"{theirs}.k_norm.weight"),
        ]

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        return super().config(section, vocabulary) | {"head_dim": at(section, "dims.head_dim")}
