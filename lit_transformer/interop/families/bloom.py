"""BLOOM (2022, arXiv:2211.05100)."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family, common, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, fused, same
from lit_transformer.interop.transforms import SplitHeads
from lit_transformer.vocabulary import Vocabulary


class Bloom(Family):
    """A pre-norm decoder with ALiBi and a norm of the embedding."""

    model_type = "bloom"
    architecture = "BloomForCausalLM"
    prefix = "transformer."

    def network(self, config: Config) -> Section:
        """See the base class."""
        config.refuse("apply_residual_connection_post_layernorm", False)
        width = config.size("hidden_size", "n_embed")
        norm = part("LayerNorm", eps=config.number("layer_norm_epsilon", default=1e-5))
        dropout, attention = (config.number(f"{name}_dropout", default=0.0) or None for name in ("hidden", "attention"))
        layer = part(
            "Layer",
            attention=part("Attention", bias=True, dropout=attention),
            feed_forward=part("MLP", activation=part("GELU", approximate="tanh"), bias=True),
            norm=norm,
            dropout=dropout,
        )
        return part(
            "DecoderOnly",
            dims={
                "d_model": width,
                "n_layers": config.size("n_layer", "num_hidden_layers"),
                "n_heads": config.size("n_head", "num_attention_heads"),
            },
            layer=layer,
            position=part("ALiBi"),
            embedding=part("Embedding", norm=norm),
            head=part("TiedHead" if self._tied(config) else "LinearHead"),
        )

    def _tied(self, config: Config) -> bool:
        return config.flag("tie_word_embeddings", default=True)

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        names = {"d_model": "hidden_size", "n_layers": "n_layer", "n_heads": "n_head"}
        return {
            **common(section, vocabulary, **names),
            "layer_norm_epsilon": at(section, "layer.0.norm.eps", 1e-5),
            "tie_word_embeddings": at(section, "head.class_path") == "TiedHead",
        }

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        heads = config.size("n_head", "num_attention_heads")
        size = config.size("hidden_size", "n_embed") // heads
        entries = [
            same("embedding.weight", "transformer.word_embeddings.weight"),
            *both("embedding.norm", "transformer.word_embeddings_layernorm"),
            *both("stack.norm", "transformer.ln_f"),
        ]
        if not self._tied(config):
            entries.append(same("head.weight", "lm_head.weight"))
        for i in range(config.size("n_layer", "num_hidden_layers")):
            ours, theirs = f"stack.layers.{i}", f"transformer.h.{i}"
            for kind in ("weight", "bias"):
                qkv = (f"{ours}.attention.{name}.{kind}" for name in ("query", "key", "value"))
                fused_name = f"{theirs}.self_attention.query_key_value.{kind}"
                entries.append(fused(qkv, fused_name, SplitHeads(heads, [size] * 3)))
            entries += both(f"{ours}.attention.output", f"{theirs}.self_attention.dense")
            entries += both(f"{ours}.feed_forward.up", f"{theirs}.mlp.dense_h_to_4h")
            entries += both(f"{ours}.feed_forward.down", f"{theirs}.mlp.dense_4h_to_h")
            entries += both(f"{ours}.residual.norms.0", f"{theirs}.input_layernorm")
            entries += both(f"{ours}.residual.norms.1", f"{theirs}.post_attention_layernorm")
        return entries

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {"lm_head.weight": "transformer.word_embeddings.weight"} if self._tied(config) else {}
