"""Mixture of experts against the naive dense mixture, and against Mixtral and DeepSeek-V3."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from discovery import close, randomised
from torch import nn

from lit_transformer.blocks import (
    GEGLU,
    MLP,
    BiasBalancing,
    Capacity,
    Causal,
    Context,
    EagerKernel,
    FeedForward,
    Layer,
    LayerNorm,
    LoadBalancingLoss,
    MixtureOfExperts,
    RoPE,
    RouterZLoss,
    SigmoidRouter,
    Sites,
    SoftmaxRouter,
    Stack,
    SwiGLU,
    SwitchRouter,
    Visibility,
    update_balance,
)
from lit_transformer.blocks.experts import GroupedLinear, GroupedResidualLinear, grouped_product
from lit_transformer.blocks.linear import ResidualLinear
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import DecoderOnly
from lit_transformer.training.recompute import Recompute, recompute_layers
from lit_transformer.vocabulary import Vocabulary

DIMS = Dims(d_model=16, n_layers=1, n_heads=2, d_ff=24)


def context(documents=None, length=5):
    sites = Sites(torch.arange(length).unsqueeze(0), documents)
    return Context(Visibility(Causal(), sites, sites), RoPE(DIMS), None, None, EagerKernel())


def stream(dtype=torch.float64, batch=2, length=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, length, 16, dtype=torch.float64, generator=generator).to(dtype)


def single(moe, e):
    """Expert number e as a feed-forward of its own."""
    expert = type(moe.experts.each)(moe.experts.each.dims)
    bias = any(name.endswith("bias") for name in moe.experts.each.state_dict())
    if bias:
        expert = type(expert)(expert.dims, bias=True)
    expert.to(moe.router.weight.dtype)
    expert.load_state_dict({name: value[e] for name, value in moe.experts.each.state_dict().items()})
    return expert


def naive(moe, x):
    """Every expert on every token, weighted; most weights are zero."""
    scores = moe.router.scores(F.linear(x, moe.router.weight))
    chosen = scores.topk(moe.router.top_k).indices
    weights = torch.zeros_like(scores).scatter(-1, chosen, moe.router.weigh(scores.gather(-1, chosen)))
    everything = torch.stack([single(moe, e)(x, None)[0] for e in range(scores.shape[-1])], -1)
    y = (everything * weights.unsqueeze(-2)).sum(-1)
    return y + sum(shared(x, None)[0] for shared in moe.shared)


ROUTERS = [SoftmaxRouter, SwitchRouter, partial(SigmoidRouter, scale=2.5)]


@pytest.mark.parametrize("router", ROUTERS, ids=["softmax", "switch", "sigmoid"])
@pytest.mark.parametrize("expert", [SwiGLU, GEGLU, partial(SwiGLU, bias=True), partial(MLP, bias=True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropless_is_the_naive_mixture(router, expert, dtype):
    moe = randomised(MixtureOfExperts(DIMS, 6, 3, expert, router=router, n_shared=1).to(dtype))
    a, b = stream(dtype).requires_grad_(), stream(dtype).requires_grad_()
    y, expected = moe(a, context())[0], naive(moe, b)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    close(y, expected, tolerance)
    y.square().sum().backward()
    expected.square().sum().backward()
    close(a.grad, b.grad, 10 * tolerance)


def test_gradients_of_the_experts_are_those_of_single_ones():
    moe = randomised(MixtureOfExperts(DIMS, 4, 2).double())
    x = stream()
    moe(x, context())[0].square().sum().backward()
    weight = moe.experts.each.up.weight
    found = weight.grad.clone()
    leaf = weight.detach().clone().requires_grad_()
    others = {n: v.detach() for n, v in moe.experts.each.state_dict().items()}
    scores = F.linear(x, moe.router.weight.detach()).softmax(-1)
    chosen = scores.topk(2).indices
    weights = torch.zeros_like(scores).scatter(-1, chosen, moe.router.weigh(scores.gather(-1, chosen)))
    y = 0
    for e in range(4):
        hidden = F.silu(x @ others["gate.weight"][e].T) * (x @ leaf[e].T)
        y = y + weights[..., e : e + 1] * (hidden @ others["down.weight"][e].T)
    y.square().sum().backward()
    close(found, leaf.grad, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_grouped_product_with_empty_experts(dtype):
    x, w = torch.randn(10, 8).to(dtype), torch.randn(4, 8, 16).to(dtype)
    ends = torch.tensor([3, 3, 10, 10], dtype=torch.int32)
    expected = torch.cat((x[:3] @ w[0], x[3:] @ w[2]))
    close(grouped_product(x, w, ends).float(), expected.float(), 1e-2 if dtype == torch.bfloat16 else 1e-5)


def test_experts_hold_grouped_weights_and_start_like_single_ones():
    moe = MixtureOfExperts(DIMS, 4, 2)
    assert isinstance(moe.experts.each.down, GroupedResidualLinear | ResidualLinear)
    assert isinstance(moe.experts.each.up, GroupedLinear) and moe.experts.each.up.weight.shape == (4, 24, 16)
    network = DecoderOnly(Vocabulary(7), Dims(64, 2, 2), partial(Layer, feed_forward=MixtureOfExperts))
    each = network.stack.layers[0].feed_forward.experts.each
    assert float(each.up.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(each.down.weight.detach().std()) == pytest.approx(0.01, rel=0.05)  # 0.02 / sqrt(2 x 2 layers)


def test_routing_and_loss_are_mixtrals():
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

    config = MixtralConfig(
        hidden_size=16, intermediate_size=24, num_local_experts=6, num_experts_per_tok=2, num_attention_heads=2
    )
    theirs = MixtralSparseMoeBlock(config)
    for parameter in theirs.parameters():
        parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    ours = MixtureOfExperts(DIMS, 6, 2, balance=[partial(LoadBalancingLoss, weight=1.0), RouterZLoss])
    gate, up = theirs.experts.gate_up_proj.data.chunk(2, dim=1)
    ours.router.weight.data.copy_(theirs.gate.weight)
    ours.experts.each.load_state_dict(
        {"gate.weight": gate, "up.weight": up, "down.weight": theirs.experts.down_proj.data}
    )
    x, documents = stream(torch.float32), torch.tensor([[0, 0, 0, 0, -1], [-1, -1, 0, 0, 0]])
    y, auxiliary = ours(x, context(documents))
    close(y, theirs(x), 1e-5)
    logits = theirs.gate(x)[0]
    expected = load_balancing_loss_func((logits,), 6, 2, (documents >= 0).long())
    close(auxiliary.losses["load_balancing"], expected, 1e-6)
    z = logits.logsumexp(-1).square()[(documents >= 0).flatten()].mean()
    close(auxiliary.losses["router_z"], 0.001 * z, 1e-6)


def test_routing_is_deepseek_v3s():
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    config = DeepseekV3Config(
        hidden_size=16, moe_intermediate_size=24, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=1,
        n_group=4, topk_group=2, routed_scaling_factor=2.5, norm_topk_prob=True, num_attention_heads=2,
    )  # fmt: skip
    theirs = DeepseekV3MoE(config)
    for tensor in (*theirs.parameters(), *theirs.buffers()):
        tensor.data.normal_(std=0.3, generator=torch.Generator().manual_seed(tensor.numel()))
    router = partial(SigmoidRouter, scale=2.5, groups=4, top_groups=2)
    ours = MixtureOfExperts(DIMS, 8, 3, n_shared=1, router=router, balance=[BiasBalancing])
    gate, up = theirs.experts.gate_up_proj.data.chunk(2, dim=1)
    ours.router.weight.data.copy_(theirs.gate.weight)
    ours.balance[0].bias.copy_(theirs.gate.e_score_correction_bias)
    ours.experts.each.load_state_dict(
        {"gate.weight": gate, "up.weight": up, "down.weight": theirs.experts.down_proj.data}
    )
    shared = theirs.shared_experts.state_dict()
    ours.shared[0].load_state_dict({name.replace("_proj", ""): value for name, value in shared.items()})
    x = stream(torch.float32, 4, 16)
    close(ours(x, context(length=16))[0], theirs(x), 1e-5)


def test_capacity_with_room_for_all_is_dropless():
    roomy = randomised(MixtureOfExperts(DIMS, 4, 2, dispatch=Capacity(4.0)).double())
    dropless = randomised(MixtureOfExperts(DIMS, 4, 2).double())
    y, auxiliary = roomy.train()(stream(), context())
    close(y, dropless(stream(), context())[0], 1e-12)
    assert float(auxiliary.stats["dropped"]) == 0.0


def test_capacity_turns_away_later_tokens_and_second_choices_first():
    moe = randomised(MixtureOfExperts(DIMS, 2, 1, router=SwitchRouter, dispatch=Capacity(1.0)).double()).train()
    moe.router.weight.data.zero_()
    moe.router.weight.data[0, 0] = 5.0
    x = stream(length=4, batch=1)
    x[..., 0] = 1.0  # all want expert 0, which has room for two of four
    y, auxiliary = moe(x, context(length=4))
    assert torch.equal(y[0, 2:], torch.zeros(2, 16, dtype=torch.float64)) and (y[0, :2] != 0).any(-1).all()
    assert float(auxiliary.stats["dropped"]) == 0.5
    padded = moe(x, context(torch.tensor([[-1, -1, 0, 0]]), 4))[0]
    assert (padded[0, 2:] != 0).any(-1).all()  # padding takes no room
    assert "dropped" not in moe.eval()(x, context(length=4))[1].stats


def test_load_is_the_share_of_choices_without_padding():
    moe = randomised(MixtureOfExperts(DIMS, 4, 2))
    documents = torch.tensor([[0, 0, 0, -1, -1], [0, 0, 0, 0, 0]])
    x = stream(torch.float32)
    load = moe(x, context(documents))[1].stats["expert_load"]
    chosen = F.linear(x, moe.router.weight).topk(2).indices[documents >= 0]
    close(load, torch.bincount(chosen.flatten(), minlength=4) / 16, 1e-6)
    assert not load.requires_grad


def test_router_is_in_float32_under_autocast():
    moe = randomised(MixtureOfExperts(DIMS, 6, 2))
    x = stream(torch.float32)
    expected = moe.router(x.flatten(0, 1), None)
    with torch.autocast("cpu", torch.bfloat16):
        found = moe.router(x.flatten(0, 1), None)
    assert found.logits.dtype == torch.float32 and torch.equal(found.logits, expected.logits)


class TestBiasBalancing:
    layer = partial(
        Layer, feed_forward=partial(MixtureOfExperts, n_experts=4, balance=[partial(BiasBalancing, rate=0.1)])
    )

    def network(self):
        network = DecoderOnly(Vocabulary(11), Dims(16, 2, 2), self.layer).train()
        return randomised(network), [m for m in network.modules() if isinstance(m, BiasBalancing)]

    def test_moves_towards_idle_experts_once_a_step(self):
        _, (part, _) = self.network()
        part.counts.copy_(torch.tensor([8, 0, 4, 4]))
        part.update()
        close(part.bias, torch.tensor([-0.1, 0.1, 0.0, 0.0]), 1e-6)
        assert not part.counts.any()
        part.update()
        close(part.bias, torch.tensor([-0.1, 0.1, 0.0, 0.0]), 1e-6)

    @pytest.mark.parametrize("recompute", [False, True])
    def test_is_the_same_however_the_window_is_cut_and_with_recompute(self, recompute):
        tokens = torch.randint(11, (4, 8), generator=torch.Generator().manual_seed(1))
        biases = []
        for cut in (1, 2, 4):
            network, parts = self.network()
            if recompute:
                recompute_layers(network, 1, Recompute.contexts)
            for piece in tokens.chunk(cut):
                network(piece).logits.square().sum().backward()
                assert not parts[0].bias.any()
            assert int(parts[0].counts.sum()) == 4 * 8 * 2
            update_balance(network)
            biases.append(torch.cat([part.bias for part in parts]))
        assert biases[0].any() and torch.equal(biases[0], biases[1]) and torch.equal(biases[0], biases[2])

    def test_evaluation_does_not_count(self):
        network, parts = self.network()
        network.eval()(torch.randint(11, (2, 8)))
        with torch.no_grad():
            network.train()(torch.randint(11, (2, 8)))
        assert not parts[0].counts.any()

    def test_balances(self):
        torch.manual_seed(0)
        moe = MixtureOfExperts(DIMS, 4, 1, router=SigmoidRouter, balance=[partial(BiasBalancing, rate=0.02)]).train()
        randomised(moe)
        x = torch.randn(8, 32, 16) + 1.0
        loads = []
        for _ in range(60):
            loads.append(moe(x, context(length=32))[1].stats["expert_load"])
            update_balance(moe)
        assert float(loads[0].max()) > 0.4 and float(loads[-1].max()) < 0.32

    def test_is_in_the_checkpoint_without_the_counts(self):
        network, parts = self.network()
        names = [name for name in network.state_dict() if "balance" in name]
        assert names == [f"stack.layers.{i}.feed_forward.balance.0.bias" for i in range(2)]


class Normed(FeedForward):
    """No expert: it has weights outside of its products."""

    def __init__(self, dims):
        super().__init__(dims)
        self.norm = LayerNorm(dims)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_experts": 4, "top_k": 5}, "feed_forward.top_k: 5 of 4 experts; valid: 1 to 4"),
        ({"top_k": 0}, "feed_forward.top_k: 0 of 8"),
        ({"n_experts": 0}, "feed_forward.n_experts: is 0"),
        ({"top_k": 1}, "SwitchRouter"),
        ({"n_shared": -1}, "feed_forward.n_shared"),
        ({"d_expert": 0}, "feed_forward.d_expert"),
        ({"expert": Normed}, "feed_forward.expert: Normed has weights outside"),
        ({"router": partial(SigmoidRouter, groups=3)}, "router.groups: 3 does not divide 8 experts; valid: 1, 2, 4, 8"),
        ({"router": partial(SigmoidRouter, groups=8), "top_k": 3}, "router.top_groups: 1 of 8.*valid: 3 to 8"),
    ],
)
def test_impossible_sizes_name_key_and_remedy(arguments, message):
    with pytest.raises(SizeError, match=message):
        MixtureOfExperts(DIMS, **arguments)


def test_capacity_must_be_positive():
    with pytest.raises(SizeError, match="dispatch.factor"):
        Capacity(0.0)


def test_losses_of_layers_are_added_and_reach_the_router():
    network = DecoderOnly(Vocabulary(11), Dims(16, 2, 2), partial(Layer, feed_forward=MixtureOfExperts))
    output = network(torch.randint(11, (2, 8)))
    assert set(output.losses) == {"load_balancing"} and len(output.stats) == 2
    sum(output.losses.values()).backward()
    for layer in network.stack.layers:
        assert layer.feed_forward.router.weight.grad.abs().sum() > 0
    assert isinstance(network.stack, Stack) and isinstance(network.stack.layers, nn.ModuleList)


def test_flops_count_the_experts_that_a_token_meets():
    dims = Dims(16, 2, 2, d_ff=24)
    dense = DecoderOnly(Vocabulary(7), dims).flops_per_token(8)
    mixture = DecoderOnly(
        Vocabulary(7), dims, partial(Layer, feed_forward=partial(MixtureOfExperts, n_experts=8, top_k=2))
    )
    assert mixture.flops_per_token(8) - dense == 6 * 2 * (3 * 16 * 24)
