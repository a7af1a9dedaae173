"""BART (Lewis et al., 2020, arXiv:1910.13461), and the base of Marian."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family, activation, activation_name, common, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, same
from lit_transformer.interop.transforms import RowsFrom, Unwrapped
from lit_transformer.vocabulary import Vocabulary

ATTENTION_NAMES = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
OFFSET = 2
"""Rows of the tables of positions that no token stands on."""


class Bart(Family):
    """A post-norm encoder-decoder with learned positions and a norm of each stack's embedding."""

    model_type = "bart"
    architecture = "BartForConditionalGeneration"
    auto_class = "AutoModelForSeq2SeqLM"
    prefix = "model."
    dropped = (r"classification_head\..*",)
    task = "Translation"
    scales = False

    def network(self, config: Config) -> Section:
        """See the base class."""
        for key in ("encoder", "decoder"):
            config.refuse(f"{key}_layerdrop", 0.0, 0)
        width, heads = config.size("encoder_ffn_dim"), config.size("encoder_attention_heads")
        config.refuse("decoder_ffn_dim", width)
        config.refuse("decoder_attention_heads", heads)
        dropout = config.number("dropout", default=0.1) or None
        attention = {"bias": True, "dropout": config.number("attention_dropout", default=0.0) or None}
        layer = part(
            "Layer",
            attention=part("Attention", **attention),
            cross_attention=part("CrossAttention", **attention),
            feed_forward=part("MLP", activation=activation(config, "activation_function", default="gelu"), bias=True),
            norm=part("LayerNorm"),
            residual="PostNorm",
            dropout=dropout,
        )
        n_layers = config.size("encoder_layers")
        scaled = config.flag("scale_embedding", default=self.scales)
        return part(
            "EncoderDecoder",
            dims={
                "d_model": config.size("d_model"),
                "n_layers": config.size("decoder_layers"),
                "n_heads": heads,
                "d_ff": width,
                "max_len": config.size("max_position_embeddings", default=1024),
            },
            layer=layer,
            position=self.position(config),
            embedding=part("ScaledEmbedding" if scaled else "Embedding", dropout=dropout),
            head="BiasedHead",
            encoder=part("EncoderParts", n_layers=n_layers),
        )

    def position(self, config: Config) -> Section:
        """The position of both stacks."""
        return part("NormedPosition", position="Learned", norm="LayerNorm")

    def start_id(self, config: Config, generation: Config) -> int | None:
        """See the base class."""
        given = generation.token("decoder_start_token_id")
        return config.token("decoder_start_token_id") if given is None else given

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        dims = section["dims"]
        result = {
            **common(
                section, vocabulary, d_model="d_model", n_layers="decoder_layers", max_len="max_position_embeddings"
            ),
            "encoder_layers": at(section, "encoder.n_layers"),
            "activation_function": activation_name(section, "layer.0.feed_forward.activation", "gelu"),
            "scale_embedding": at(section, "embedding.class_path") == "ScaledEmbedding",
            "decoder_start_token_id": vocabulary.start_id,
            "forced_eos_token_id": vocabulary.eos_id,
            "is_encoder_decoder": True,
            "tie_word_embeddings": True,
        }
        for stack in ("encoder", "decoder"):
            result |= {f"{stack}_ffn_dim": dims["d_ff"], f"{stack}_attention_heads": dims["n_heads"]}
        return result

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        entries = [
            same("embedding.weight", "model.shared.weight"),
            same("head.bias", "final_logits_bias", Unwrapped(), optional=True),
        ]
        for stack in ("encoder", "decoder"):
            entries += self.position_entries(f"{stack}.position", f"model.{stack}")
            names = {"attention": "self_attn"} | ({"cross_attention": "encoder_attn"} if stack == "decoder" else {})
            for i in range(config.size(f"{stack}_layers")):
                ours, theirs = f"{stack}.layers.{i}", f"model.{stack}.layers.{i}"
                for j, (mine, other) in enumerate(names.items()):
                    for name, there in ATTENTION_NAMES.items():
                        entries += both(f"{ours}.{mine}.{name}", f"{theirs}.{other}.{there}")
                    entries += both(f"{ours}.residual.norms.{j}", f"{theirs}.{other}_layer_norm")
                entries += both(f"{ours}.residual.norms.{len(names)}", f"{theirs}.final_layer_norm")
                entries += both(f"{ours}.feed_forward.up", f"{theirs}.fc1")
                entries += both(f"{ours}.feed_forward.down", f"{theirs}.fc2")
        return entries

    def position_entries(self, ours: str, theirs: str) -> list[Entry]:
        """The weights of a stack's position."""
        table = same(f"{ours}.position.table", f"{theirs}.embed_positions.weight", RowsFrom(OFFSET))
        return [table, *both(f"{ours}.norm", f"{theirs}.layernorm_embedding")]

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        names = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
        return dict.fromkeys(names, "model.shared.weight")
