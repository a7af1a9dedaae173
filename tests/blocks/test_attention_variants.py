"""Latent, differential, gated and linear attention against independent references."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from discovery import close, randomised
from torch import Tensor

from lit_transformer.blocks import (
    ALiBi,
    Attention,
    BaseAttention,
    Causal,
    Context,
    DifferentialAttention,
    EagerKernel,
    GatedAttention,
    LatentAttention,
    Layer,
    LinearAttention,
    NoPosition,
    Position,
    RMSNorm,
    RoPE,
    SdpaKernel,
    Sites,
    Stack,
    Visibility,
)
from lit_transformer.dims import Dims, SizeError
from lit_transformer.errors import UserError

DIMS = Dims(d_model=16, n_layers=2, n_heads=4, head_dim=4)
LENGTH = 10


def stream(batch: int = 2, length: int = LENGTH, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, length, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


def context(position: Position, length: int = LENGTH, dtype: torch.dtype = torch.float64, kernel=None) -> Context:
    positions = torch.arange(length).unsqueeze(0)
    sites, state = Sites(positions), position.prepare(positions, dtype)
    return Context(Visibility(Causal(), sites, sites), position, state, state, kernel or EagerKernel())


def halves(x: Tensor) -> Tensor:
    """Rows of turned dimensions from pairs (0, 1), (2, 3) ... to pairs (0, K/2), (1, K/2 + 1) ..."""
    return torch.cat((x[..., 0::2, :], x[..., 1::2, :]), dim=-2)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("query_rank", [None, 6])
def test_latent_attention_is_deepseeks(version, query_rank):
    if version == 2:
        from transformers import DeepseekV2Config as Config
        from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention as Theirs
        from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2RotaryEmbedding as Rotary
    else:
        from transformers import DeepseekV3Config as Config
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention as Theirs
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding as Rotary
    heads, turned, content, value, rank = 4, 4, 6, 8, 12
    config = Config(
        hidden_size=16, num_attention_heads=heads, num_key_value_heads=heads, q_lora_rank=query_rank, kv_lora_rank=rank,
        qk_rope_head_dim=turned, qk_nope_head_dim=content, v_head_dim=value, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = randomised(Theirs(config, 0)).eval()
    ours = LatentAttention(DIMS, rank, query_rank, content, value)
    state = theirs.state_dict()

    def queries(weight):
        per_head = weight.view(heads, content + turned, -1)
        return torch.cat((per_head[:, :content], halves(per_head[:, content:])), 1).flatten(0, 1)

    latent = state["kv_a_proj_with_mqa.weight"]
    expansion = state["kv_b_proj.weight"].view(heads, content + value, rank)
    copied = {
        "latent.weight": latent[:rank],
        "turned_key.weight": halves(latent[rank:]),
        "latent_norm.weight": state["kv_a_layernorm.weight"],
        "key.weight": expansion[:, :content].flatten(0, 1),
        "value.weight": expansion[:, content:].flatten(0, 1),
        "output.weight": state["o_proj.weight"],
    }
    if query_rank is None:
        copied["query.weight"] = queries(state["q_proj.weight"])
    else:
        copied["query_latent.weight"] = state["q_a_proj.weight"]
        copied["query_norm.weight"] = state["q_a_layernorm.weight"]
        copied["query.weight"] = queries(state["q_b_proj.weight"])
    ours.load_state_dict(copied)
    x, positions = stream(dtype=torch.float32), torch.arange(LENGTH).unsqueeze(0)
    mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1).expand(2, 1, -1, -1)
    expected = theirs(x, position_embeddings=Rotary(config)(x, positions), attention_mask=mask)[0]
    for kernel in (EagerKernel(), SdpaKernel()):
        close(ours(x, context(RoPE(DIMS), dtype=torch.float32, kernel=kernel))[0], expected, 1e-5)


@pytest.mark.parametrize("position", [RoPE, NoPosition, ALiBi])
def test_absorbed_form_is_the_expanded_one(position, monkeypatch):
    layer = partial(Layer, attention=partial(LatentAttention, rank=6, content_size=3, value_size=5))
    built, x = randomised(Stack(DIMS, layer, position, kernel=EagerKernel()).double()).eval(), stream()
    expected, used = built(x)[0], []
    plain = LatentAttention.absorbed

    def noted(self, *given):
        used.append(self)
        return plain(self, *given)

    monkeypatch.setattr(LatentAttention, "absorbed", noted)
    cache = built.new_cache(2, LENGTH)
    first, cache, _ = built(x[:, :4], cache=cache)
    assert not used
    rest, cache, _ = built(x[:, 4:], cache=cache)
    assert len(used) == 2
    close(torch.cat((first, rest), 1), expected, 1e-9)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_differential_attention_is_difftransformers(kv_heads):
    from transformers import DiffLlamaConfig
    from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention, DiffLlamaRotaryEmbedding

    config = DiffLlamaConfig(
        hidden_size=16, num_attention_heads=4, num_key_value_heads=kv_heads, head_dim=4, rms_norm_eps=1e-5
    )
    config._attn_implementation = "eager"
    theirs = randomised(DiffLlamaAttention(config, layer_idx=2)).eval()
    ours = DifferentialAttention(
        replace(DIMS, n_kv_heads=kv_heads), start=theirs.lambda_init, norm=partial(RMSNorm, eps=1e-5)
    )
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    state = theirs.state_dict()
    copied = {f"{name}.weight": state[f"{other}.weight"] for name, other in names.items()}
    copied |= {f"{a}{i}": state[f"lambda_{a[0]}{i}"] for a in ("query", "key") for i in (1, 2)}
    ours.load_state_dict(copied | {"norm.weight": torch.ones(8)})
    x, positions = stream(dtype=torch.float32), torch.arange(LENGTH).unsqueeze(0)
    mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1).expand(2, 1, -1, -1)
    expected = theirs(x, DiffLlamaRotaryEmbedding(config)(x, positions), mask)[0]
    close(ours(x, context(RoPE(DIMS), dtype=torch.float32))[0], expected, 1e-5)


def test_differential_attention_of_equal_heads_is_a_multiple_of_one():
    """With both halves of queries and keys equal, the difference is (1 - a) times the plain result."""
    attention = randomised(DifferentialAttention(DIMS, start=0.5).double())
    for product in (attention.query, attention.key):
        product.weight.data[8:] = product.weight.data[:8]
    inputs = []
    attention.norm.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    attention(stream(), context(NoPosition(DIMS)))
    plain = Attention(DIMS).double()
    for name in ("query", "key", "value"):
        getattr(plain, name).load_state_dict(getattr(attention, name).state_dict())
    wide = plain.gather(stream(), context(NoPosition(DIMS)), None)[0].view(2, LENGTH, 4, 4)
    factor = 1 - attention.factor()
    # Value heads 0 and 2 make the first wide value; its weights are those of query head 0.
    close(inputs[0][:, 0, :, :4], factor * wide[:, :, 0], 1e-9)


def test_gated_attention_is_the_formula():
    gated = randomised(GatedAttention(DIMS, qk_norm=RMSNorm).double())
    plain = Attention(DIMS, qk_norm=RMSNorm).double()
    plain.load_state_dict({n: v for n, v in gated.state_dict().items() if not n.startswith("gate")})
    x, at = stream(), context(RoPE(DIMS))
    found = gated(x, at)[0]
    expected = plain.output(plain.gather(x, at, None)[0] * torch.sigmoid(F.linear(x, gated.gate.weight)))
    close(found, expected, 1e-12)


@pytest.mark.parametrize("position", [RoPE, NoPosition])
@pytest.mark.parametrize("chunk", [1, 3, 5, 64])
@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize(
    "documents", [None, [[0] * 10, [0, 0, 0, 1, 1, 1, 1, 2, -1, -1]], [[-1, 0, 0, 0, -1, -1, 0, 1, 1, 1]] * 2]
)
def test_linear_attention_is_its_quadratic_form(position, chunk, kv_heads, documents):
    dims = replace(DIMS, n_kv_heads=kv_heads)
    built = randomised(Stack(dims, partial(Layer, attention=partial(LinearAttention, chunk=chunk)), position).double())
    attention, x = built.layers[0].attention, stream()
    documents = None if documents is None else torch.tensor(documents)
    seen = {}
    attention.register_forward_hook(lambda module, given, result: seen.update(x=given[0], y=result[0]))
    built(x, documents=documents)
    q, k, v = (attention._heads(product(seen["x"])) for product in (attention.query, attention.key, attention.value))
    q, k = F.elu(q) + 1, F.elu(k).add(1).repeat_interleave(4 // kv_heads, 1)
    v = v.repeat_interleave(4 // kv_heads, 1)
    place = position(dims)
    state = place.prepare(torch.arange(LENGTH).unsqueeze(0), torch.float64)
    turned_q, turned_k = place.rotate(q, k, state, state)
    allowed = torch.ones(LENGTH, LENGTH).tril().bool().expand(2, 1, -1, -1)
    if documents is not None:
        same = (documents.unsqueeze(-1) == documents.unsqueeze(-2)) & (documents >= 0).unsqueeze(-1)
        allowed = allowed & same.unsqueeze(1)
    weights = (turned_q @ turned_k.mT).masked_fill(~allowed, 0.0)
    total = (q @ k.mT).masked_fill(~allowed, 0.0).sum(-1, keepdim=True)
    y = (weights @ v) / (total + 1e-6)
    close(seen["y"], attention.output(y.transpose(1, 2).flatten(2)), 1e-9)


def test_linear_attentions_state_goes_on_over_documents_and_padding():
    built = randomised(Stack(DIMS, partial(Layer, attention=partial(LinearAttention, chunk=4))).double()).eval()
    x, documents = stream(), torch.tensor([[0, 0, -1, 0, 0, 1, 1, 1, 1, 1], [-1, -1, 0, 0, 0, 0, 0, 0, 2, 2]])
    expected, cache, found = built(x, documents=documents)[0], built.new_cache(2, LENGTH), []
    for piece, part in zip(x.split(3, 1), documents.split(3, 1), strict=True):
        y, cache, _ = built(piece, documents=part, cache=cache)
        found.append(y)
    close(torch.cat(found, 1), expected, 1e-9)


def test_linear_attention_cannot_go_back():
    built = Stack(DIMS, partial(Layer, attention=LinearAttention))
    cache = built(stream(dtype=torch.float32), cache=built.new_cache(2, 20))[1]
    with pytest.raises(UserError, match="cannot go back to 4"):
        built(stream(length=1, dtype=torch.float32), cache=replace(cache, length=4))


@pytest.mark.parametrize("attention", [Attention, GatedAttention, DifferentialAttention])
def test_grouped_heads_with_copied_weights_are_all_heads(attention):
    few = randomised(attention(replace(DIMS, n_kv_heads=2)).double())
    state = few.state_dict()
    for name in ("key.weight", "value.weight"):
        state[name] = state[name].view(2, 4, 16).repeat_interleave(2, 0).flatten(0, 1)
    if attention is DifferentialAttention:
        pytest.skip("its value heads stand in pairs; the reference test has grouped heads")
    many = attention(DIMS).double()
    many.load_state_dict(state)
    close(few(stream(), context(RoPE(DIMS)))[0], many(stream(), context(RoPE(DIMS)))[0], 1e-12)


def test_grouped_query_with_all_heads_is_multi_head():
    grouped, multi_head = randomised(Attention(replace(DIMS, n_kv_heads=4)).double()), Attention(DIMS).double()
    multi_head.load_state_dict(grouped.state_dict())
    x, at = stream(), context(RoPE(DIMS))
    assert torch.equal(grouped(x, at)[0], multi_head(x, at)[0])


CACHE = [
    (Attention, {}, 2 * 4 * 4),  # multi-head: 2 x H x K numbers a token
    (Attention, {"n_kv_heads": 2}, 2 * 2 * 4),  # grouped-query: 2 x G x K
    (Attention, {"n_kv_heads": 1}, 2 * 4),  # multi-query: 2 x K
    (GatedAttention, {"n_kv_heads": 2}, 2 * 2 * 4),
    (DifferentialAttention, {"n_kv_heads": 2}, 2 * 2 * 4),
    (partial(LatentAttention, rank=6), {}, 6 + 4),  # latent: R + K, whatever the heads
]


@pytest.mark.parametrize(("attention", "sizes", "numbers"), CACHE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_bytes_are_the_formula(attention, sizes, numbers, dtype):
    built = Stack(replace(DIMS, **sizes), partial(Layer, attention=attention))
    assert built.new_cache(3, 50, dtype=dtype).nbytes == 2 * 3 * 50 * numbers * dtype.itemsize


def test_linear_attentions_cache_does_not_grow():
    built = Stack(DIMS, partial(Layer, attention=LinearAttention))
    sizes = {built.new_cache(3, length).nbytes for length in (1, 50, 5000)}
    assert sizes == {2 * 3 * 4 * (4 * 4 + 4) * 4}  # layers x B x G x (K x K + K) in float32


@pytest.mark.parametrize(
    ("attention", "dims", "message"),
    [
        (DifferentialAttention, Dims(12, 1, 3), "dims.n_heads: 3 is odd"),
        (DifferentialAttention, Dims(16, 1, 4, 1), "dims.n_kv_heads: 1 is odd"),
        (partial(DifferentialAttention, start=1.0), DIMS, "attention.start"),
        (LatentAttention, Dims(16, 1, 4, 2), r"dims.n_kv_heads: 2.*valid: 4"),
        (partial(LatentAttention, rank=0), DIMS, "attention.rank: is 0"),
        (partial(LatentAttention, value_size=9), DIMS, "attention.value_size: 9.*valid: 1 to 8"),
        (partial(LinearAttention, chunk=0), DIMS, "attention.chunk"),
    ],
)
def test_impossible_sizes_name_key_and_remedy(attention, dims, message):
    with pytest.raises(SizeError, match=message):
        attention(dims)


def test_all_are_attentions():
    for cls in (Attention, GatedAttention, DifferentialAttention, LatentAttention, LinearAttention):
        assert issubclass(cls, BaseAttention)
