"""T5 and T5 v1.1 (Raffel et al., 2020, arXiv:1910.10683)."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family, activation_name, common, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, same
from lit_transformer.interop.transforms import Scaled
from lit_transformer.vocabulary import Vocabulary

PROJECTIONS = {
    "relu": part("MLP", activation="ReLU"),
    "gelu": part("MLP", activation="GELU"),
    "silu": part("MLP", activation="SiLU"),
    "gated-gelu": part("Gated", activation=part("GELU", approximate="tanh")),
    "gated-gelu_new": part("Gated", activation=part("GELU", approximate="tanh")),
    "gated-relu": part("ReGLU"),
    "gated-silu": part("SwiGLU"),
}


class T5(Family):
    """A pre-norm encoder-decoder whose positions are biases by distance.

    It does not divide scores by sqrt(K), and the first version scales what the tied head reads: both factors are folded
    into weights, of the queries and of the last norm.
    """

    model_type = "t5"
    architecture = "T5ForConditionalGeneration"
    auto_class = "AutoModelForSeq2SeqLM"
    ignored = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",)
    task = "Translation"

    def network(self, config: Config) -> Section:
        """See the base class."""
        name = config.text("feed_forward_proj", default="relu")
        if name not in PROJECTIONS:
            raise config.fault("feed_forward_proj", f"is {name!r}; known: {', '.join(PROJECTIONS)}")
        dropout = config.number("dropout_rate", default=0.1) or None
        attention = part("Attention", dropout=dropout)
        layer = part(
            "Layer",
            attention=attention,
            cross_attention=part("CrossAttention", dropout=dropout),
            feed_forward=PROJECTIONS[name],
            norm=part("RMSNorm", eps=config.number("layer_norm_epsilon", default=1e-6)),
            dropout=dropout,
        )
        buckets = config.size("relative_attention_num_buckets", default=32)
        reach = config.size("relative_attention_max_distance", default=128)
        n_layers = config.size("num_layers")
        return part(
            "EncoderDecoder",
            dims={
                "d_model": config.size("d_model"),
                "n_layers": config.size("num_decoder_layers", default=n_layers),
                "n_heads": config.size("num_heads"),
                "head_dim": config.size("d_kv", default=64),
                "d_ff": config.size("d_ff"),
            },
            layer=layer,
            position=part("CausalRelativeBias", buckets=buckets, max_distance=reach),
            embedding=part("Embedding", dropout=dropout),
            head=part("LinearHead" if self._apart(config) else "TiedHead"),
            encoder=part(
                "EncoderParts",
                n_layers=n_layers,
                position=part("RelativeBias", buckets=buckets, max_distance=reach),
            ),
        )

    def _scaled(self, config: Config) -> bool:
        tied = config.flag("tie_word_embeddings", default=True)
        return config.flag("scale_decoder_outputs", default=tied)

    def _apart(self, config: Config) -> bool:
        """Whether the head has weights of its own."""
        if self._scaled(config):
            return False
        return config.has_weight("lm_head.weight", otherwise=not config.flag("tie_word_embeddings", default=True))

    def start_id(self, config: Config, generation: Config) -> int | None:
        """See the base class."""
        given = generation.token("decoder_start_token_id")
        given = config.token("decoder_start_token_id") if given is None else given
        return config.token("pad_token_id") if given is None else given

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        names = {"d_model": "d_model", "n_layers": "num_decoder_layers", "n_heads": "num_heads", "head_dim": "d_kv"}
        tied = at(section, "head.class_path") == "TiedHead"
        feed_forward = at(section, "layer.0.feed_forward")
        kind = activation_name(feed_forward, "activation", "relu")
        if at(feed_forward, "class_path") == "Gated":
            kind = "gated-" + ("gelu" if kind == "gelu_new" else kind)
        return {
            **common(section, vocabulary, **names, d_ff="d_ff"),
            "bos_token_id": None,
            "decoder_start_token_id": vocabulary.start_id,
            "num_layers": at(section, "encoder.n_layers"),
            "relative_attention_num_buckets": at(section, "position.buckets", 32),
            "relative_attention_max_distance": at(section, "position.max_distance", 128),
            "feed_forward_proj": kind,
            "layer_norm_epsilon": at(section, "layer.0.norm.eps", 1e-6),
            "is_encoder_decoder": True,
            "tie_word_embeddings": tied,
            "scale_decoder_outputs": tied,
        }

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        scale = Scaled(config.size("d_kv", default=64) ** 0.5)
        last = Scaled(config.size("d_model") ** -0.5) if self._scaled(config) else Scaled(1.0)
        entries = [
            same("embedding.weight", "shared.weight"),
            same("encoder.norm.weight", "encoder.final_layer_norm.weight"),
            same("decoder.norm.weight", "decoder.final_layer_norm.weight", last),
        ]
        if self._apart(config):
            entries.append(same("head.weight", "lm_head.weight"))
        gated = config.text("feed_forward_proj", default="relu").startswith("gated-")
        products = {"up": "wi", "down": "wo"} if not gated else {"gate": "wi_0", "up": "wi_1", "down": "wo"}
        depth = {"encoder": config.size("num_layers")}
        depth["decoder"] = config.size("num_decoder_layers", default=depth["encoder"])
        for stack, n_layers in depth.items():
            table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            entries.append(same(f"{stack}.position.table", table))
            sublayers = {"attention": "SelfAttention", "cross_attention": "EncDecAttention"}
            if stack == "encoder":
                del sublayers["cross_attention"]
            for i in range(n_layers):
                ours, theirs = f"{stack}.layers.{i}", f"{stack}.block.{i}.layer"
                for j, (mine, other) in enumerate(sublayers.items()):
                    for name in ("query", "key", "value", "output"):
                        steps = (scale,) if name == "query" else ()
                        entries.append(
                            same(f"{ours}.{mine}.{name}.weight", f"{theirs}.{j}.{other}.{name[0]}.weight", *steps)
                        )
                last_sublayer = len(sublayers)
                for mine, other in products.items():
                    there = f"{theirs}.{last_sublayer}.DenseReluDense.{other}.weight"
                    entries.append(same(f"{ours}.feed_forward.{mine}.weight", there))
                for j in range(last_sublayer + 1):
                    entries.append(same(f"{ours}.residual.norms.{j}.weight", f"{theirs}.{j}.layer_norm.weight"))
        return entries

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        found = {f"{stack}.embed_tokens.weight": "shared.weight" for stack in ("encoder", "decoder")}
        return found if self._apart(config) else found | {"lm_head.weight": "shared.weight"}
