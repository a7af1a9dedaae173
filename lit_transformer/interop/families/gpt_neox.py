"""GPT-NeoX and Pythia (Black et al., 2022, arXiv:2204.06745; Biderman et al., 2023, arXiv:2304.01373)."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family, activation, activation_name, common, part
from lit_transformer.interop.rotary import rope, rope_config
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, fused, same
from lit_transformer.interop.transforms import SplitHeads
from lit_transformer.vocabulary import Vocabulary


class GPTNeoX(Family):
    """A decoder of which a part of each head turns, attention and feed-forward side by side."""

    model_type = "gpt_neox"
    architecture = "GPTNeoXForCausalLM"
    prefix = "gpt_neox."
    ignored = (r"gpt_neox\.layers\.\d+\.attention\.(masked_bias|bias|rotary_emb\.inv_freq)",)

    def network(self, config: Config) -> Section:
        """See the base class."""
        width = config.size("hidden_size")
        parallel = config.flag("use_parallel_residual", default=True)
        bias = config.flag("attention_bias", default=True)
        layer = part(
            "Layer",
            attention=part("Attention", bias=bias, dropout=config.number("attention_dropout", default=0.0) or None),
            feed_forward=part("MLP", activation=activation(config, "hidden_act", default="gelu"), bias=True),
            norm=part("LayerNorm", eps=config.number("layer_norm_eps", default=1e-5)),
            residual="ParallelNorms" if parallel else "PreNorm",
            dropout=config.number("hidden_dropout", default=0.0) or None,
        )
        return part(
            "DecoderOnly",
            dims={
                "d_model": width,
                "n_layers": config.size("num_hidden_layers"),
                "n_heads": config.size("num_attention_heads"),
                "d_ff": config.size("intermediate_size", default=4 * width),
                "max_len": config.size("max_position_embeddings", default=2048),
            },
            layer=layer,
            position=rope(config, share=0.25),
            head=part("TiedHead" if self._tied(config) else "LinearHead"),
        )

    def _tied(self, config: Config) -> bool:
        return config.flag("tie_word_embeddings", default=False)

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        names = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
        layer = section["layer"][0]
        position = rope_config(section["position"])
        share = position.pop("partial_rotary_factor", 1.0)
        return {
            **common(section, vocabulary, **names, d_ff="intermediate_size", max_len="max_position_embeddings"),
            **position,
            "rotary_emb_base": position["rope_theta"],
            "rotary_pct": share,
            "hidden_act": activation_name(layer, "feed_forward.activation", "gelu"),
            "layer_norm_eps": at(layer, "norm.eps", 1e-5),
            "attention_bias": at(layer, "attention.bias", True),
            "use_parallel_residual": at(layer, "residual.class_path") == "ParallelNorms",
            "tie_word_embeddings": at(section, "head.class_path") == "TiedHead",
        }

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        heads = config.size("num_attention_heads")
        size = config.size("hidden_size") // heads
        bias = config.flag("attention_bias", default=True)
        entries = [
            same("embedding.weight", "gpt_neox.embed_in.weight"),
            *both("stack.norm", "gpt_neox.final_layer_norm"),
        ]
        if not self._tied(config):
            entries.append(same("head.weight", "embed_out.weight"))
        for i in range(config.size("num_hidden_layers")):
            ours, theirs = f"stack.layers.{i}", f"gpt_neox.layers.{i}"
            for kind in ("weight", "bias") if bias else ("weight",):
                qkv = (f"{ours}.attention.{name}.{kind}" for name in ("query", "key", "value"))
                entries.append(fused(qkv, f"{theirs}.attention.query_key_value.{kind}", SplitHeads(heads, [size] * 3)))
            entries += both(f"{ours}.attention.output", f"{theirs}.attention.dense", bias=bias)
            entries += both(f"{ours}.feed_forward.up", f"{theirs}.mlp.dense_h_to_4h")
            entries += both(f"{ours}.feed_forward.down", f"{theirs}.mlp.dense_4h_to_h")
            entries += both(f"{ours}.residual.norms.0", f"{theirs}.input_layernorm")
            entries += both(f"{ours}.residual.norms.1", f"{theirs}.post_attention_layernorm")
        return entries

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {"embed_out.weight": "gpt_neox.embed_in.weight"} if self._tied(config) else {}
