"""Llama 2 and 3 (Touvron et al., 2023, arXiv:2307.09288; 2024, arXiv:2407.21783), and the base of its relatives."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family, activation, activation_name, common, gated, part, pattern
from lit_transformer.interop.rotary import rope, rope_config
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, same
from lit_transformer.interop.transforms import Transform
from lit_transformer.vocabulary import Vocabulary


class Llama(Family):
    """A pre-norm decoder with rotary positions and a gated feed-forward."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    prefix = "model."
    ignored: tuple[str, ...] = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
    base_frequency = 10_000.0
    tied = False
    eps = 1e-6
    attention_names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}

    def network(self, config: Config) -> Section:
        """See the base class."""
        layers = [self.layer(config, i) for i in range(config.size("num_hidden_layers"))]
        return part(
            "DecoderOnly",
            dims=self.dims(config),
            layer=pattern(layers),
            position=self.position(config),
            mask=self.mask(config),
            embedding=self.embedding(config),
            head=self.head(config),
        )

    def dims(self, config: Config) -> Section:
        """The sizes."""
        heads = config.size("num_attention_heads")
        return {
            "d_model": config.size("hidden_size"),
            "n_layers": config.size("num_hidden_layers"),
            "n_heads": heads,
            "n_kv_heads": config.size("num_key_value_heads", default=heads),
            "head_dim": config.size("head_dim", default=config.size("hidden_size") // heads),
            "d_ff": config.size("intermediate_size"),
            "max_len": config.size("max_position_embeddings", default=2048),
        }

    def layer(self, config: Config, i: int) -> Section:
        """Layer number ``i``."""
        return part(
            "Layer",
            attention=self.attention(config, i),
            feed_forward=self.feed_forward(config, i),
            norm=part("RMSNorm", eps=config.number("rms_norm_eps", default=self.eps)),
            mask=self.own_mask(config, i),
        )

    def attention(self, config: Config, i: int) -> Section:
        """The attention of a layer."""
        bias = config.flag("attention_bias", default=False)
        return part("Attention", bias=bias or None, dropout=self.dropout(config))

    def dropout(self, config: Config) -> float | None:
        """Dropout of the attention weights; None: none."""
        return config.number("attention_dropout", default=0.0) or None

    def feed_forward(self, config: Config, i: int) -> Section:
        """The feed-forward of a layer."""
        return gated(config, activation(config, "hidden_act", default="silu"), config.flag("mlp_bias", default=False))

    def position(self, config: Config) -> Section:
        """The position."""
        return rope(config, self.base_frequency)

    def mask(self, config: Config) -> Section | None:
        """The stack's mask; None: causal."""
        return None

    def own_mask(self, config: Config, i: int) -> Section | None:
        """A layer's mask; None: the stack's."""
        return None

    def embedding(self, config: Config) -> Section | None:
        """The embedding; None: the plain one."""
        return None

    def is_tied(self, config: Config) -> bool:
        """Whether the head shares the embedding's weight."""
        return config.flag("tie_word_embeddings", default=self.tied)

    def head(self, config: Config) -> Section:
        """The head."""
        return part("TiedHead" if self.is_tied(config) else "LinearHead")

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        layer = section["layer"][0]
        names = {
            "d_model": "hidden_size",
            "n_layers": "num_hidden_layers",
            "n_heads": "num_attention_heads",
            "n_kv_heads": "num_key_value_heads",
            "head_dim": "head_dim",
            "d_ff": "intermediate_size",
            "max_len": "max_position_embeddings",
        }
        return {
            **common(section, vocabulary, **names),
            "hidden_act": activation_name(layer, "feed_forward.activation", "silu"),
            "rms_norm_eps": at(layer, "norm.eps", self.eps),
            "attention_bias": at(layer, "attention.bias", False),
            "attention_dropout": 0.0,
            "mlp_bias": at(layer, "feed_forward.bias", False),
            "tie_word_embeddings": at(section, "head.class_path") == "TiedHead",
            **rope_config(section["position"]),
        }

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        entries = [
            same("embedding.weight", "model.embed_tokens.weight"),
            same("stack.norm.weight", "model.norm.weight", *self.norm_steps()),
        ]
        if not self.is_tied(config):
            entries.append(same("head.weight", "lm_head.weight"))
        for i in range(config.size("num_hidden_layers")):
            ours, theirs = f"stack.layers.{i}", f"model.layers.{i}"
            entries += self.norms(ours, theirs)
            entries += self.attention_entries(config, i, f"{ours}.attention", f"{theirs}.self_attn")
            entries += self.feed_forward_entries(config, i, f"{ours}.feed_forward", f"{theirs}.mlp")
        return entries

    def norm_steps(self) -> tuple[Transform, ...]:
        """What is done to a norm's weight."""
        return ()

    def norms(self, ours: str, theirs: str) -> list[Entry]:
        """The norms of a layer."""
        return [
            same(f"{ours}.residual.norms.0.weight", f"{theirs}.input_layernorm.weight"),
            same(f"{ours}.residual.norms.1.weight", f"{theirs}.post_attention_layernorm.weight"),
        ]

    def attention_entries(self, config: Config, i: int, ours: str, theirs: str) -> list[Entry]:
        """The products of an attention."""
        spec = self.attention(config, i)
        bias = bool(spec.get("bias"))
        writes = bias if spec.get("output_bias") is None else spec["output_bias"]
        entries: list[Entry] = []
        for mine, other in self.attention_names.items():
            steps = self.query_steps(config) if mine == "query" else ()
            entries += both(f"{ours}.{mine}", f"{theirs}.{other}", *steps, bias=writes if mine == "output" else bias)
        return entries

    def query_steps(self, config: Config) -> tuple[Transform, ...]:
        """What is done to queries."""
        return ()

    def feed_forward_entries(self, config: Config, i: int, ours: str, theirs: str) -> list[Entry]:
        """The products of a feed-forward."""
        bias = config.flag("mlp_bias", default=False)
        return [e for n in ("gate", "up", "down") for e in both(f"{ours}.{n}", f"{theirs}.{n}_proj", bias=bias)]

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {"lm_head.weight": "model.embed_tokens.weight"} if self.is_tied(config) else {}
