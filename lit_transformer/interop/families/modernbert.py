"""ModernBERT (Warner et al., 2024, arXiv:2412.13663)."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.bert import Bert
from lit_transformer.interop.family import activation, activation_name, common, part, pattern
from lit_transformer.interop.rotary import rope, rope_config
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, fused, same
from lit_transformer.interop.transforms import Split
from lit_transformer.vocabulary import Vocabulary

GLOBAL, LOCAL = "full_attention", "sliding_attention"


class ModernBert(Bert):
    """A pre-norm encoder with rotary positions: most layers look at a window, with a smaller base."""

    model_type = "modernbert"
    architecture = "ModernBertForMaskedLM"
    base = "ModernBertModel"
    prefix = "model."
    ignored = ()
    dropped = (r"classifier\..*",)
    head_weight = "head.dense.weight"

    def network(self, config: Config) -> Section:
        """See the base class."""
        config.refuse("attention_bias", False)
        config.refuse("mlp_bias", False)
        config.refuse("decoder_bias", True)
        norm = self._norm(config)
        n_layers = config.size("num_hidden_layers")
        act = activation(config, "hidden_activation", default="gelu")
        layers = []
        for i, kind in enumerate(self._kinds(config)):
            dropout = config.number("attention_dropout", default=0.0) or None
            layer = part(
                "Layer",
                attention=part("Attention", dropout=dropout),
                feed_forward=part("Gated", activation=act),
                norm=norm,
                residual="OpenStart" if i == 0 else None,
            )
            if kind == LOCAL:
                window = config.size("local_attention", default=128) // 2 + 1
                layer["mask"] = part("SlidingWindow", window=window)
                layer["position"] = self._position(config, LOCAL)
            layers.append(layer)
        head_act = activation(config, "classifier_activation", default="gelu")
        bias = config.flag("classifier_bias", default=False)
        return part(
            "EncoderOnly",
            dims={
                "d_model": config.size("hidden_size"),
                "n_layers": n_layers,
                "n_heads": config.size("num_attention_heads"),
                "d_ff": config.size("intermediate_size"),
                "max_len": config.size("max_position_embeddings", default=8192),
            },
            layer=pattern(layers),
            position=self._position(config, GLOBAL),
            embedding=part("Embedding", norm=norm, dropout=config.number("embedding_dropout", default=0.0) or None),
            head=part("MaskedHead", norm=norm, activation=head_act, bias=bias)
            if self.has_head(config)
            else part("TiedHead"),
        )

    def _norm(self, config: Config) -> Section:
        bias = config.flag("norm_bias", default=False)
        return part("LayerNorm", eps=config.number("norm_eps", default=1e-5), bias=bias)

    def _kinds(self, config: Config) -> list[str]:
        n_layers, every = config.size("num_hidden_layers"), config.size("global_attn_every_n_layers", default=3)
        return config.texts("layer_types", n_layers) or [LOCAL if i % every else GLOBAL for i in range(n_layers)]

    def _position(self, config: Config, kind: str) -> Section:
        name, base = ("global_rope_theta", 160_000.0) if kind == GLOBAL else ("local_rope_theta", 10_000.0)
        return rope(config, config.number(name, default=base), kind)

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        names = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
        layers = section["layer"]
        windows = [at(layer, "mask.window") for layer in layers]
        local = [layer for layer, window in zip(layers, windows, strict=True) if window]
        positions = {GLOBAL: section["position"], LOCAL: local[0]["position"] if local else section["position"]}
        nested = {}
        for kind, position in positions.items():
            found = rope_config(position)
            nested[kind] = {"rope_type": "default", **(found["rope_scaling"] or {}), "rope_theta": found["rope_theta"]}
        kinds = [LOCAL if window else GLOBAL for window in windows]
        every = kinds[1:].index(GLOBAL) + 1 if GLOBAL in kinds[1:] else len(kinds)
        result = {
            **common(section, vocabulary, **names, d_ff="intermediate_size", max_len="max_position_embeddings"),
            "hidden_activation": activation_name(section, "layer.0.feed_forward.activation", "gelu"),
            "norm_eps": at(section, "layer.0.norm.eps", 1e-5),
            "norm_bias": at(section, "layer.0.norm.bias", False),
            "layer_types": kinds,
            "global_attn_every_n_layers": every,
            "local_attention": 2 * (at(local, "0.mask.window", 65) - 1),
            "rope_parameters": nested,
            "global_rope_theta": nested[GLOBAL]["rope_theta"],
            "local_rope_theta": nested[LOCAL]["rope_theta"],
            "classifier_activation": activation_name(section, "head.activation", "gelu"),
            "classifier_bias": at(section, "head.bias", False),
            "cls_token_id": vocabulary.bos_id,
            "sep_token_id": vocabulary.eos_id,
        }
        if at(section, "head.class_path") == "TiedHead":
            result["architectures"] = [self.base]
        return result

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        bias = config.flag("norm_bias", default=False)
        entries = [
            same("embedding.weight", "model.embeddings.tok_embeddings.weight"),
            *both("embedding.norm", "model.embeddings.norm", bias=bias),
            *both("stack.norm", "model.final_norm", bias=bias),
        ]
        for i in range(config.size("num_hidden_layers")):
            ours, theirs = f"stack.layers.{i}", f"model.layers.{i}"
            qkv = (f"{ours}.attention.{name}.weight" for name in ("query", "key", "value"))
            gate_up = (f"{ours}.feed_forward.{name}.weight" for name in ("gate", "up"))
            entries += [
                fused(qkv, f"{theirs}.attn.Wqkv.weight", Split(3)),
                same(f"{ours}.attention.output.weight", f"{theirs}.attn.Wo.weight"),
                fused(gate_up, f"{theirs}.mlp.Wi.weight", Split(2)),
                same(f"{ours}.feed_forward.down.weight", f"{theirs}.mlp.Wo.weight"),
                *both(f"{ours}.residual.norms.1", f"{theirs}.mlp_norm", bias=bias),
            ]
            if i:
                entries += both(f"{ours}.residual.norms.0", f"{theirs}.attn_norm", bias=bias)
        if self.has_head(config):
            entries += both("head.transform", "head.dense", bias=config.flag("classifier_bias", default=False))
            entries += [*both("head.norm", "head.norm", bias=bias), same("head.bias", "decoder.bias")]
        return entries

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {"decoder.weight": "model.embeddings.tok_embeddings.weight"}
