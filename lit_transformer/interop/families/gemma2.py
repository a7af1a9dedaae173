"""Gemma 2 (2024, arXiv:2408.00118): windows in every second layer, norms on both sides, soft caps."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.llama import Llama
from lit_transformer.interop.families.mistral import window_of, windowed
from lit_transformer.interop.family import activation, activation_name, gated, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, same
from lit_transformer.interop.transforms import Plus, Scaled, Transform
from lit_transformer.vocabulary import Vocabulary

NORMS = {
    "norms.0": "input_layernorm",
    "output_norms.0": "post_attention_layernorm",
    "norms.1": "pre_feedforward_layernorm",
    "output_norms.1": "post_feedforward_layernorm",
}


class Gemma2(Llama):
    """Norms scale by 1 + w there and by w here; ``query_pre_attn_scalar`` is folded into the queries."""

    model_type = "gemma2"
    architecture = "Gemma2ForCausalLM"
    tied = True

    def dims(self, config: Config) -> Section:
        """See the base class."""
        return super().dims(config) | {"head_dim": config.size("head_dim", default=256)}

    def layer(self, config: Config, i: int) -> Section:
        """See the base class."""
        return super().layer(config, i) | {"residual": "Sandwich"}

    def attention(self, config: Config, i: int) -> Section:
        """See the base class."""
        config.refuse("use_bidirectional_attention", False)
        cap = config.number("attn_logit_softcapping", default=None)
        return super().attention(config, i) | ({} if cap is None else {"soft_cap": cap})

    def feed_forward(self, config: Config, i: int) -> Section:
        """See the base class."""
        return gated(config, activation(config, "hidden_activation", "hidden_act", default="gelu_pytorch_tanh"))

    def own_mask(self, config: Config, i: int) -> Section | None:
        """See the base class."""
        kinds = config.texts("layer_types", config.size("num_hidden_layers"))
        slides = kinds[i] == "sliding_attention" if kinds else i % 2 == 0
        return windowed(config.size("sliding_window", default=4096)) if slides else None

    def embedding(self, config: Config) -> Section | None:
        """See the base class."""
        return part("ScaledEmbedding")

    def head(self, config: Config) -> Section:
        """See the base class."""
        cap = config.number("final_logit_softcapping", default=None)
        head = super().head(config)
        return head if cap is None else part("SoftCapped", head=head, cap=cap)

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        windows = [window_of(layer["mask"]) for layer in section["layer"]]
        some = [window for window in windows if window is not None]
        capped = at(section, "head.class_path") == "SoftCapped"
        head = at(section, "head.head" if capped else "head")
        act = activation_name(section, "layer.0.feed_forward.activation", "gelu_pytorch_tanh")
        result = super().config(section, vocabulary)
        result.pop("hidden_act")
        return result | {
            "hidden_activation": act,
            "layer_types": ["full_attention" if window is None else "sliding_attention" for window in windows],
            "sliding_window": some[0] if some else 4096,
            "attn_logit_softcapping": at(section, "layer.0.attention.soft_cap"),
            "final_logit_softcapping": at(section, "head.cap") if capped else None,
            "query_pre_attn_scalar": section["dims"]["head_dim"],
            "tie_word_embeddings": at(head, "class_path") == "TiedHead",
        }

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        entries = super().table(config)
        if self.head(config)["class_path"] == "SoftCapped":
            entries = [same("head.head.weight", e.theirs[0]) if e.ours == ("head.weight",) else e for e in entries]
        return entries

    def norm_steps(self) -> tuple[Transform, ...]:
        """See the base class."""
        return (Plus(1.0),)

    def norms(self, ours: str, theirs: str) -> list[Entry]:
        """See the base class."""
        return [
            same(f"{ours}.residual.{mine}.weight", f"{theirs}.{other}.weight", Plus(1.0))
            for mine, other in NORMS.items()
        ]

    def query_steps(self, config: Config) -> tuple[Transform, ...]:
        """See the base class."""
        scalar = config.number("query_pre_attn_scalar", default=256.0)
        return (Scaled((self.dims(config)["head_dim"] / scalar) ** 0.5),)
