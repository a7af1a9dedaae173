"""Mixtral (Jiang et al., 2024, arXiv:2401.04088): Mistral with a mixture of experts in every layer."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.mistral import Mistral
from lit_transformer.interop.family import activation, activation_name, gated, part
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, same
from lit_transformer.interop.transforms import Stacked
from lit_transformer.vocabulary import Vocabulary

EXPERT_NAMES = {"gate": "w1", "down": "w2", "up": "w3"}


def expert_entries(ours: str, theirs: str, names: dict[str, str], n_experts: int) -> list[Entry]:
    """The products of all experts, each of ours the stack of theirs."""
    return [
        Entry(
            (f"{ours}.experts.each.{mine}.weight",),
            tuple(f"{theirs}.experts.{e}.{other}.weight" for e in range(n_experts)),
            (Stacked(),),
        )
        for mine, other in names.items()
    ]


class Mixtral(Mistral):
    """Mistral with a mixture of experts in every layer."""

    model_type = "mixtral"
    architecture = "MixtralForCausalLM"
    base_frequency = 1e6
    eps = 1e-5
    default_window = None

    def feed_forward(self, config: Config, i: int) -> Section:
        """See the base class."""
        weight = config.number("router_aux_loss_coef", default=0.001)
        return part(
            "MixtureOfExperts",
            n_experts=config.size("num_local_experts", default=8),
            top_k=config.size("num_experts_per_tok", default=2),
            expert=gated(config, activation(config, "hidden_act", default="silu")),
            balance=[part("LoadBalancingLoss", weight=weight)] if weight else [],
        )

    def feed_forward_entries(self, config: Config, i: int, ours: str, theirs: str) -> list[Entry]:
        """See the base class."""
        theirs = theirs.removesuffix("mlp") + "block_sparse_moe"
        n_experts = config.size("num_local_experts", default=8)
        entries = [same(f"{ours}.router.weight", f"{theirs}.gate.weight")]
        return entries + expert_entries(ours, theirs, EXPERT_NAMES, n_experts)

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        expert = "layer.0.feed_forward.expert.activation"
        return super().config(section, vocabulary) | {
            "hidden_act": activation_name(section, expert, "silu"),
            "num_local_experts": at(section, "layer.0.feed_forward.n_experts", 8),
            "num_experts_per_tok": at(section, "layer.0.feed_forward.top_k", 2),
            "intermediate_size": at(section, "layer.0.feed_forward.d_expert", section["dims"]["d_ff"]),
        }
