"""DistilBERT (Sanh et al., 2019, arXiv:1910.01108): BERT without token types."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.bert import Bert
from lit_transformer.interop.family import activation, activation_name, common, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, same
from lit_transformer.vocabulary import Vocabulary


class DistilBert(Bert):
    """A post-norm encoder with learned positions."""

    model_type = "distilbert"
    architecture = "DistilBertForMaskedLM"
    base = "DistilBertModel"
    prefix = "distilbert."
    ignored = (r"distilbert\.embeddings\.position_ids",)
    dropped = (r"pre_classifier\..*", r"classifier\..*", r"qa_outputs\..*")
    head_weight = "vocab_transform.weight"
    transform, head_norm, head_bias = "vocab_transform", "vocab_layer_norm", "vocab_projector.bias"

    def network(self, config: Config) -> Section:
        """See the base class."""
        norm = part("LayerNorm", eps=1e-12)
        act = activation(config, "activation", default="gelu")
        dropout, attention = (config.number(name, default=0.1) or None for name in ("dropout", "attention_dropout"))
        layer = part(
            "Layer",
            attention=part("Attention", bias=True, dropout=attention),
            feed_forward=part("MLP", activation=act, bias=True),
            norm=norm,
            residual="PostNorm",
            dropout=dropout,
        )
        return part(
            "EncoderOnly",
            dims={
                "d_model": config.size("dim"),
                "n_layers": config.size("n_layers"),
                "n_heads": config.size("n_heads"),
                "d_ff": config.size("hidden_dim"),
                "max_len": self.longest(config),
            },
            layer=layer,
            position=part("Learned"),
            embedding=part("Embedding", norm=norm, dropout=dropout),
            head=part("MaskedHead", norm=norm, activation=act) if self.has_head(config) else part("TiedHead"),
        )

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        names = {"d_model": "dim", "n_layers": "n_layers", "n_heads": "n_heads", "d_ff": "hidden_dim"}
        result = {
            **common(section, vocabulary, **names, max_len="max_position_embeddings"),
            "activation": activation_name(section, "layer.0.feed_forward.activation", "gelu"),
        }
        if at(section, "head.class_path") == "TiedHead":
            result["architectures"] = [self.base]
        return result

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        entries = [
            same("embedding.weight", "distilbert.embeddings.word_embeddings.weight"),
            same("stack.position.table", "distilbert.embeddings.position_embeddings.weight"),
            *both("embedding.norm", "distilbert.embeddings.LayerNorm"),
        ]
        names = {"query": "q_lin", "key": "k_lin", "value": "v_lin", "output": "out_lin"}
        for i in range(config.size("n_layers")):
            ours, theirs = f"stack.layers.{i}", f"distilbert.transformer.layer.{i}"
            for mine, other in names.items():
                entries += both(f"{ours}.attention.{mine}", f"{theirs}.attention.{other}")
            entries += both(f"{ours}.feed_forward.up", f"{theirs}.ffn.lin1")
            entries += both(f"{ours}.feed_forward.down", f"{theirs}.ffn.lin2")
            entries += both(f"{ours}.residual.norms.0", f"{theirs}.sa_layer_norm")
            entries += both(f"{ours}.residual.norms.1", f"{theirs}.output_layer_norm")
        return entries + self.head_entries(config)

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
