"""GPT-2 (Radford et al., 2019)."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family, activation, activation_name, common, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, both, fused, same
from lit_transformer.interop.transforms import Scaled, Split, Transposed
from lit_transformer.vocabulary import Vocabulary


class GPT2(Family):
    """A pre-norm decoder with learned positions; its matrices lie on their side."""

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    prefix = "transformer."
    ignored = (r"transformer\.h\.\d+\.attn\.(masked_)?bias",)

    def network(self, config: Config) -> Section:
        """See the base class."""
        config.refuse("add_cross_attention", False)
        width = config.size("n_embd")
        residual, attention = (config.number(f"{name}_pdrop", default=0.1) or None for name in ("resid", "attn"))
        layer = part(
            "Layer",
            attention=part("Attention", bias=True, dropout=attention),
            feed_forward=part(
                "MLP", activation=activation(config, "activation_function", default="gelu_new"), bias=True
            ),
            norm=part("LayerNorm", eps=config.number("layer_norm_epsilon", default=1e-5)),
            dropout=residual,
        )
        return part(
            "DecoderOnly",
            dims={
                "d_model": width,
                "n_layers": config.size("n_layer"),
                "n_heads": config.size("n_head"),
                "d_ff": config.size("n_inner", default=4 * width),
                "max_len": config.size("n_positions", "n_ctx", default=1024),
            },
            layer=layer,
            position=part("Learned"),
            embedding=part("Embedding", dropout=config.number("embd_pdrop", default=0.1) or None),
            head=part("TiedHead" if self._tied(config) else "LinearHead"),
        )

    def _tied(self, config: Config) -> bool:
        return config.flag("tie_word_embeddings", default=True)

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        names = {"d_model": "n_embd", "n_layers": "n_layer", "n_heads": "n_head", "d_ff": "n_inner"}
        layer = section["layer"][0]
        return {
            **common(section, vocabulary, **names, max_len="n_positions"),
            "activation_function": activation_name(layer, "feed_forward.activation", "gelu_new"),
            "layer_norm_epsilon": at(layer, "norm.eps", 1e-5),
            "tie_word_embeddings": at(section, "head.class_path") == "TiedHead",
        }

    def table(self, config: Config) -> list[Entry]:
        """See the base class."""
        size = config.size("n_embd") // config.size("n_head")
        own_scale = config.flag("scale_attn_weights", default=True)
        by_layer = config.flag("scale_attn_by_inverse_layer_idx", default=False)
        entries = [
            same("embedding.weight", "transformer.wte.weight"),
            same("stack.position.table", "transformer.wpe.weight"),
            *both("stack.norm", "transformer.ln_f"),
        ]
        if not self._tied(config):
            entries.append(same("head.weight", "lm_head.weight"))
        for i in range(config.size("n_layer")):
            ours, theirs = f"stack.layers.{i}", f"transformer.h.{i}"
            factor = (1.0 if own_scale else size**0.5) / (i + 1 if by_layer else 1)
            qkv = [f"{ours}.attention.{name}" for name in ("query", "key", "value")]
            steps = (Split(3), _FirstScaled(factor))
            entries += [
                fused((f"{n}.weight" for n in qkv), f"{theirs}.attn.c_attn.weight", Transposed(), *steps),
                fused((f"{n}.bias" for n in qkv), f"{theirs}.attn.c_attn.bias", *steps),
            ]
            for mine, other in (
                ("attention.output", "attn.c_proj"),
                ("feed_forward.up", "mlp.c_fc"),
                ("feed_forward.down", "mlp.c_proj"),
            ):
                entries.append(same(f"{ours}.{mine}.weight", f"{theirs}.{other}.weight", Transposed()))
                entries.append(same(f"{ours}.{mine}.bias", f"{theirs}.{other}.bias"))
            entries += both(f"{ours}.residual.norms.0", f"{theirs}.ln_1")
            entries += both(f"{ours}.residual.norms.1", f"{theirs}.ln_2")
        return entries

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {"lm_head.weight": "transformer.wte.weight"} if self._tied(config) else {}


class _FirstScaled(Scaled):
    """The queries of queries, keys and values scaled."""

    def inward(self, theirs: list[Any]) -> list[Any]:
        return [*super().inward(theirs[:1]), *theirs[1:]]

    def outward(self, ours: list[Any]) -> list[Any]:
        return [*super().outward(ours[:1]), *ours[1:]]
