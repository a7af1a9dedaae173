"""DeepSeek-V2 and V3 (2024, arXiv:2405.04434 and arXiv:2412.19437): latent attention, many small experts."""

from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.families.llama import Llama
from lit_transformer.interop.families.mixtral import expert_entries
from lit_transformer.interop.family import activation, activation_name, gated, part
from lit_transformer.interop.rotary import mscale, rope_parameters
from lit_transformer.interop.section import Section, at
from lit_transformer.interop.table import Entry, fused, same
from lit_transformer.interop.transforms import PairsApart, Scaled, Split, SplitHeads, Transform
from lit_transformer.vocabulary import Vocabulary

EXPERT_NAMES = {name: f"{name}_proj" for name in ("gate", "up", "down")}


class DeepseekV2(Llama):
    """The first layers are dense; the others have experts of which some serve every token.

    Neighbouring dimensions turn together there, those half a head apart here: rows are reordered. YaRN's factor of the
    scores is folded into the queries.
    """

    model_type = "deepseek_v2"
    architecture = "DeepseekV2ForCausalLM"
    ignored = (*Llama.ignored, r"model\.layers\.\d+\.self_attn\.rotary_emb\..*")
    query_rank: int | None = 1536
    shared = 2
    first_dense = 0

    def dims(self, config: Config) -> Section:
        """See the base class."""
        sizes = super().dims(config) | {"head_dim": config.size("qk_rope_head_dim", default=64)}
        sizes.pop("n_kv_heads")
        return sizes

    def attention(self, config: Config, i: int) -> Section:
        """See the base class."""
        config.refuse("attention_bias", False)
        given = "q_lora_rank" in config.values
        return part(
            "LatentAttention",
            rank=config.size("kv_lora_rank", default=512),
            query_rank=config.size("q_lora_rank", default=None if given else self.query_rank),
            content_size=config.size("qk_nope_head_dim", default=128),
            value_size=config.size("v_head_dim", default=128),
            dropout=self.dropout(config),
            norm=part("RMSNorm", eps=1e-6),
        )

    def is_dense(self, config: Config, i: int) -> bool:
        """Whether a layer has no experts."""
        config.refuse("moe_layer_freq", 1)
        return i < config.count("first_k_dense_replace", default=self.first_dense)

    def feed_forward(self, config: Config, i: int) -> Section:
        """See the base class."""
        config.refuse("mlp_bias", False)
        act = activation(config, "hidden_act", default="silu")
        if self.is_dense(config, i):
            return gated(config, act)
        return part(
            "MixtureOfExperts",
            n_experts=self.n_experts(config),
            top_k=config.size("num_experts_per_tok"),
            expert=gated(config, act),
            d_expert=config.size("moe_intermediate_size"),
            n_shared=config.count("n_shared_experts", default=self.shared),
            router=self.router(config),
            balance=self.balance(config),
        )

    def n_experts(self, config: Config) -> int:
        """Number of experts that a token is sent to some of."""
        return int(config.size("n_routed_experts", default=64))

    def router(self, config: Config) -> Section:
        """The router."""
        config.refuse("topk_method", "greedy", "group_limited_greedy")
        config.refuse("norm_topk_prob", False)
        config.refuse("scoring_func", "softmax")
        scale = config.number("routed_scaling_factor", default=1.0)
        if config.text("topk_method", default="greedy") == "greedy":
            return part("SwitchRouter", scale=scale)
        groups = {"groups": config.size("n_group"), "top_groups": config.size("topk_group")}
        return part("GroupedSwitchRouter", scale=scale, **groups)

    def balance(self, config: Config) -> list[Section]:
        """What keeps the experts busy."""
        weight = config.number("aux_loss_alpha", default=0.001)
        return [part("LoadBalancingLoss", weight=weight)] if weight else []

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        layers = section["layer"]
        sparse = [at(layer, "feed_forward.class_path") == "MixtureOfExperts" for layer in layers]
        first = sparse.index(True) if True in sparse else len(sparse)
        mixture = layers[min(first, len(layers) - 1)]["feed_forward"]
        attention = layers[0]["attention"]
        dims = section["dims"]
        act = "expert.activation" if first < len(layers) else "activation"
        return super().config(section, vocabulary) | {
            "qk_rope_head_dim": dims["head_dim"],
            "qk_nope_head_dim": at(attention, "content_size"),
            "v_head_dim": at(attention, "value_size"),
            "kv_lora_rank": at(attention, "rank"),
            "q_lora_rank": at(attention, "query_rank"),
            "first_k_dense_replace": first,
            "hidden_act": activation_name(mixture, act, "silu"),
            "n_routed_experts": at(mixture, "n_experts", 64),
            "num_experts_per_tok": at(mixture, "top_k", 2),
            "moe_intermediate_size": at(mixture, "d_expert", dims["d_ff"]),
            "n_shared_experts": at(mixture, "n_shared", self.shared),
            "routed_scaling_factor": at(mixture, "router.scale", 1.0),
            **self.routing_config(mixture),
        }

    def routing_config(self, mixture: Section) -> dict[str, Any]:
        """How tokens find experts."""
        grouped = at(mixture, "router.class_path") == "GroupedSwitchRouter"
        return {
            "topk_method": "group_limited_greedy" if grouped else "greedy",
            "n_group": at(mixture, "router.groups"),
            "topk_group": at(mixture, "router.top_groups"),
            "norm_topk_prob": False,
        }

    def query_steps(self, config: Config) -> tuple[Transform, ...]:
        """See the base class."""
        found = rope_parameters(config)
        factor, weight = found.number("factor", default=1.0), found.number("mscale_all_dim", default=0.0)
        plain = found.text("rope_type", "type", default="default") == "default"
        scale = 1.0 if plain or not weight else mscale(factor, weight) ** 2
        pairs = (PairsApart(config.size("num_attention_heads"), config.size("qk_nope_head_dim", default=128)),)
        return (Scaled(scale), *(pairs if self.interleaved(config) else ()))

    def interleaved(self, config: Config) -> bool:
        """Whether neighbouring dimensions turn together."""
        return True

    def attention_entries(self, config: Config, i: int, ours: str, theirs: str) -> list[Entry]:
        """See the base class."""
        spec = self.attention(config, i)
        heads = config.size("num_attention_heads")
        query = "q_proj" if spec.get("query_rank") is None else "q_b_proj"
        entries = [same(f"{ours}.query.weight", f"{theirs}.{query}.weight", *self.query_steps(config))]
        if spec.get("query_rank") is not None:
            entries.append(same(f"{ours}.query_latent.weight", f"{theirs}.q_a_proj.weight"))
            entries.append(same(f"{ours}.query_norm.weight", f"{theirs}.q_a_layernorm.weight"))
        latent = (f"{ours}.latent.weight", f"{ours}.turned_key.weight")
        sizes = [spec["rank"], config.size("qk_rope_head_dim", default=64)]
        steps: list[Transform] = [Split(sizes)]
        if self.interleaved(config):
            steps.append(_LastPairsApart(1))
        key_value = (f"{ours}.key.weight", f"{ours}.value.weight")
        apart = SplitHeads(heads, [spec["content_size"], spec["value_size"]])
        return entries + [
            fused(latent, f"{theirs}.kv_a_proj_with_mqa.weight", *steps),
            same(f"{ours}.latent_norm.weight", f"{theirs}.kv_a_layernorm.weight"),
            fused(key_value, f"{theirs}.kv_b_proj.weight", apart),
            same(f"{ours}.output.weight", f"{theirs}.o_proj.weight"),
        ]

    def feed_forward_entries(self, config: Config, i: int, ours: str, theirs: str) -> list[Entry]:
        """See the base class."""
        if self.is_dense(config, i):
            return super().feed_forward_entries(config, i, ours, theirs)
        n_shared = config.count("n_shared_experts", default=self.shared)
        entries = [same(f"{ours}.router.weight", f"{theirs}.gate.weight")]
        entries += expert_entries(ours, theirs, EXPERT_NAMES, self.n_experts(config))
        for name in EXPERT_NAMES if n_shared else ():
            shared = (f"{ours}.shared.{j}.{name}.weight" for j in range(n_shared))
            there = f"{theirs}.shared_experts.{name}_proj.weight"
            entries.append(fused(shared, there, Split(n_shared, dim=1 if name == "down" else 0)))
        return entries


class DeepseekV3(DeepseekV2):
    """V2 whose experts are scored one by one, in groups, with a bias that keeps them busy."""

    model_type = "deepseek_v3"
    architecture = "DeepseekV3ForCausalLM"
    shared = 1
    first_dense = 3

    def n_experts(self, config: Config) -> int:
        """See the base class."""
        return int(config.size("n_routed_experts", default=256))

    def router(self, config: Config) -> Section:
        """See the base class."""
        config.refuse("norm_topk_prob", True)
        config.refuse("scoring_func", "sigmoid")
        return part(
            "SigmoidRouter",
            scale=config.number("routed_scaling_factor", default=2.5),
            groups=config.size("n_group", default=8),
            top_groups=config.size("topk_group", default=4),
        )

    def balance(self, config: Config) -> list[Section]:
        """See the base class."""
        return [part("BiasBalancing")]

    def routing_config(self, mixture: Section) -> dict[str, Any]:
        """See the base class."""
        groups, top = at(mixture, "router.groups", 1), at(mixture, "router.top_groups", 1)
        more = {"n_group": groups, "topk_group": top, "norm_topk_prob": True, "rope_interleave": True}
        return more | {"num_nextn_predict_layers": 0}

    def left_out(self, config: Config) -> tuple[str, ...]:
        """The layers that predict further tokens, which stand behind the last one."""
        return (rf"model\.layers\.{config.size('num_hidden_layers')}\..*",)

    def interleaved(self, config: Config) -> bool:
        """See the base class."""
        return config.flag("rope_interleave", default=True)

    def feed_forward_entries(self, config: Config, i: int, ours: str, theirs: str) -> list[Entry]:
        """See the base class."""
        entries = super().feed_forward_entries(config, i, ours, theirs)
        if not self.is_dense(config, i):
            entries.append(same(f"{ours}.balance.0.bias", f"{theirs}.gate.e_score_correction_bias"))
        return entries


class _LastPairsApart(PairsApart):
    """The turned rows are the last of several."""

    def inward(self, theirs: list[Any]) -> list[Any]:
        return [*theirs[:-1], *super().inward(theirs[-1:])]

    def outward(self, ours: list[Any]) -> list[Any]:
        return [*ours[:-1], *super().outward(ours[-1:])]
