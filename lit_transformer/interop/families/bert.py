"""BERT (Devlin et al., 2019, arXiv:1810.04805), and the base of its relatives."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family, activation, activation_name, common, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, same
from lit_transformer.interop.transforms import Transform
from lit_transformer.vocabulary import Vocabulary


class Bert(Family):
    """A post-norm encoder with learned positions; the pooler and the head of next sentences are left out."""

    model_type = "bert"
    architecture = "BertForMaskedLM"
    auto_class = "AutoModelForMaskedLM"
    base = "BertModel"
    prefix = "bert."
    ignored: tuple[str, ...] = (r"bert\.embeddings\.position_ids",)
    dropped: tuple[str, ...] = (r"bert\.pooler\..*", r"cls\.seq_relationship\..*", r"classifier\..*", r"qa_outputs\..*")
    task = "MaskedLanguageModeling"
    head_weight = "cls.predictions.transform.dense.weight"
    """A weight that says whether there is a head."""
    transform, head_norm, head_bias = (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    )

    def network(self, config: Config) -> Section:
        """See the base class."""
        config.refuse("position_embedding_type", "absolute")
        config.refuse("is_decoder", False)
        config.refuse("add_cross_attention", False)
        norm = part("LayerNorm", eps=config.number("layer_norm_eps", default=1e-12))
        act = activation(config, "hidden_act", default="gelu")
        dropout = config.number("hidden_dropout_prob", default=0.1) or None
        layer = part(
            "Layer",
            attention=part(
                "Attention", bias=True, dropout=config.number("attention_probs_dropout_prob", default=0.1) or None
            ),
            feed_forward=part("MLP", activation=act, bias=True),
            norm=norm,
            residual="PostNorm",
            dropout=dropout,
        )
        return part(
            "EncoderOnly",
            dims={
                "d_model": config.size("hidden_size"),
                "n_layers": config.size("num_hidden_layers"),
                "n_heads": config.size("num_attention_heads"),
                "d_ff": config.size("intermediate_size"),
                "max_len": self.longest(config),
            },
            layer=layer,
            position=part("Learned"),
            embedding=part("Embedding", types=config.size("type_vocab_size", default=2), norm=norm, dropout=dropout),
            head=part("MaskedHead", norm=norm, activation=act) if self.has_head(config) else part("TiedHead"),
        )

    def longest(self, config: Config) -> int:
        """The longest text."""
        return int(config.size("max_position_embeddings", default=512))

    def has_head(self, config: Config) -> bool:
        """Whether there is a head of masked language modelling."""
        architectures = config.values.get("architectures")
        return config.has_weight(self.head_weight, otherwise=architectures != [self.base])

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        names = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
        layer = section["layer"][0]
        result = {
            **common(section, vocabulary, **names, d_ff="intermediate_size", max_len="max_position_embeddings"),
            "type_vocab_size": at(section, "embedding.types", 0),
            "hidden_act": activation_name(layer, "feed_forward.activation", "gelu"),
            "layer_norm_eps": at(layer, "norm.eps", 1e-12),
        }
        if at(section, "head.class_path") == "TiedHead":
            result["architectures"] = [self.base]
        return result

    def position_steps(self, config: Config) -> tuple[Transform, ...]:
        """What is done to the table of positions."""
        return ()

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        embeddings = f"{self.prefix}embeddings"
        entries = [
            same("embedding.weight", f"{embeddings}.word_embeddings.weight"),
            same("stack.position.table", f"{embeddings}.position_embeddings.weight", *self.position_steps(config)),
            same("embedding.types", f"{embeddings}.token_type_embeddings.weight"),
            *both("embedding.norm", f"{embeddings}.LayerNorm"),
        ]
        for i in range(config.size("num_hidden_layers")):
            ours, theirs = f"stack.layers.{i}", f"{self.prefix}encoder.layer.{i}"
            for name in ("query", "key", "value"):
                entries += both(f"{ours}.attention.{name}", f"{theirs}.attention.self.{name}")
            entries += both(f"{ours}.attention.output", f"{theirs}.attention.output.dense")
            entries += both(f"{ours}.feed_forward.up", f"{theirs}.intermediate.dense")
            entries += both(f"{ours}.feed_forward.down", f"{theirs}.output.dense")
            entries += both(f"{ours}.residual.norms.0", f"{theirs}.attention.output.LayerNorm")
            entries += both(f"{ours}.residual.norms.1", f"{theirs}.output.LayerNorm")
        return entries + self.head_entries(config)

    def head_entries(self, config: Config) -> list[Entry]:
        """The weights of the head."""
        if not self.has_head(config):
            return []
        transform, norm = both("head.transform", self.transform), both("head.norm", self.head_norm)
        return [*transform, *norm, same("head.bias", self.head_bias)]

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
