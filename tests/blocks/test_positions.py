"""Positions against independent references: transformers where it has them, else the papers' formulas, pair by pair."""

import math

import pytest
import torch
from discovery import DIMS, POSITIONS, close, randomised
from torch import Tensor

from lit_transformer.blocks import (
    FIRE,
    NTK,
    ALiBi,
    Causal,
    CausalRelativeBias,
    CoPE,
    DynamicNTK,
    EagerKernel,
    InterpolatedLearned,
    Learned,
    LinearScaling,
    Llama3Scaling,
    Position,
    Randomised,
    RelativeBias,
    RoPE,
    Scaling,
    Shaw,
    Sinusoidal,
    Sites,
    Stack,
    Visibility,
    XPos,
    YaRN,
)
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

B, H, T, S, K = 2, 3, 9, 14, 8
ALL = slice(None)


def qkv(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(B, H, n, K, generator=generator, dtype=dtype) for n in (T, S, S))


def made(position: type[Position] | Position, **arguments) -> Position:
    dims = Dims(d_model=24, n_heads=H, max_len=64)
    return randomised(position(dims, **arguments).double(), 3, 0.7)


def states(position: Position) -> tuple[Tensor, Tensor]:
    every = torch.arange(S).unsqueeze(0)
    return position.prepare(every[:, S - T :], torch.float64), position.prepare(every, torch.float64)


def bias(position: Position) -> Tensor:
    q, k, _ = qkv()
    return position.bias(q, k, *states(position))(ALL, ALL).expand(B, H, T, S)


def pairs():
    """Row of the query, its position, the key's position."""
    return [(i, S - T + i, j) for i in range(T) for j in range(S)]


# --- transformers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scaling", "parameters"), [
    (lambda d: Scaling(d), {"rope_type": "default"}),
    (lambda d: LinearScaling(d, 3.0), {"rope_type": "linear", "factor": 3.0}),
    (lambda d: DynamicNTK(d, 2.0), {"rope_type": "dynamic", "factor": 2.0}),
    (lambda d: YaRN(d, 4.0, 64), {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
    (lambda d: YaRN(d, 4.0, 64, 16.0, 2.0, 0.8), {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2,
     "attention_factor": 0.8, "original_max_position_embeddings": 64}),
    (lambda d: Llama3Scaling(d, 8.0, 64), {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
     "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
], ids=["none", "linear", "dynamic", "yarn", "yarn-tuned", "llama3"])  # fmt: skip
@pytest.mark.parametrize("length", [50, 150])
@pytest.mark.parametrize("base", [10_000.0, 500.0])
def test_rope_is_llamas(scaling, parameters, length, base):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=128, num_attention_heads=4, max_position_embeddings=64,
                         rope_parameters=dict(parameters, rope_theta=base))  # fmt: skip
    positions = torch.arange(length).unsqueeze(0)
    q, k = torch.randn(2, 1, 4, length, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, positions)
    expected = llama.apply_rotary_pos_emb(q, k, cos, sin)
    rope = RoPE(Dims(d_model=128, n_heads=4, max_len=64), base=base, scaling=scaling)
    state = rope.prepare(positions)
    for found, wanted in zip(rope.rotate(q, k, state, state), expected, strict=True):
        close(found, wanted, 1e-5)


def test_partial_rope_is_that_of_phi():
    phi = pytest.importorskip("transformers.models.phi.modeling_phi")
    from transformers import PhiConfig

    config = PhiConfig(hidden_size=128, num_attention_heads=4, partial_rotary_factor=0.5)
    positions = torch.arange(20).unsqueeze(0)
    q = torch.randn(1, 4, 20, 32)
    cos, sin = phi.PhiRotaryEmbedding(config)(q, positions)
    turned, _ = phi.apply_rotary_pos_emb(q[..., :16], q[..., :16], cos, sin)
    rope = RoPE(Dims(d_model=128, n_heads=4), share=0.5)
    state = rope.prepare(positions)
    close(rope.rotate(q, q, state, state)[0], torch.cat((turned, q[..., 16:]), -1), 1e-5)


def test_ntk_is_dynamic_ntk_of_one_length():
    positions = torch.arange(256).unsqueeze(0)
    dims = Dims(d_model=128, n_heads=4, max_len=64)
    dynamic = RoPE(dims, scaling=lambda d: DynamicNTK(d, 2.0)).prepare(positions)
    fixed = RoPE(dims, scaling=lambda d: NTK(d, 2.0 * 256 / 64 - 1)).prepare(positions)
    for found, wanted in zip(dynamic, fixed, strict=True):
        close(found, wanted, 1e-5)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20])
def test_alibi_is_blooms(heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    q, k, v = (torch.randn(B, heads, T, K, generator=torch.Generator().manual_seed(i)) for i in range(3))
    index = torch.arange(T).unsqueeze(0)
    padding = torch.ones(B, T, dtype=torch.long)
    padding[1, :3] = 0  # on the left
    table = bloom.build_alibi_tensor(padding, heads, torch.float32).view(B, heads, 1, T)
    documents = padding - 1
    positions = (padding.cumsum(-1) - 1).clamp(min=0)
    visible = Visibility(Causal(), Sites(index, documents), Sites(index, documents))
    alibi = ALiBi(Dims(d_model=heads * K, n_heads=heads))
    found = EagerKernel()(q, k, v, visible, alibi.bias(q, k, positions, positions))
    scores = q @ k.transpose(-2, -1) * K**-0.5 + table
    scores = scores.masked_fill(~visible.dense.unsqueeze(1), torch.finfo(torch.float32).min)
    expected = scores.softmax(-1) @ v
    close(found[0], expected[0], 1e-5)
    close(found[1, :, 3:], expected[1, :, 3:], 1e-5)


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (8, 20)])
def test_relative_bias_is_t5s(decoder, buckets, far):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    from transformers import T5Config

    config = T5Config(d_model=16, num_heads=4, relative_attention_num_buckets=buckets,
                      relative_attention_max_distance=far, is_decoder=decoder)  # fmt: skip
    reference = t5.T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    torch.nn.init.normal_(reference.relative_attention_bias.weight)
    cls = CausalRelativeBias if decoder else RelativeBias
    ours = cls(Dims(d_model=16, n_heads=4), buckets, far)
    ours.table.data.copy_(reference.relative_attention_bias.weight)
    positions = torch.arange(300).unsqueeze(0)
    q = torch.zeros(1, 4, 300, 4)
    found = ours.bias(q, q, positions, positions)(ALL, ALL)
    close(found, reference.compute_bias(300, 300), 1e-5)


# --- the papers' formulas -------------------------------------------------------------------------------------------


def test_sinusoidal_formula():
    waves = made(Sinusoidal).prepare(torch.tensor([[0, 3, 7]]), torch.float64)[0]
    for row, n in enumerate((0, 3, 7)):
        for i in range(12):
            angle = n / 10_000 ** (i / 11)
            assert math.isclose(waves[row, i], math.sin(angle), abs_tol=1e-12)
            assert math.isclose(waves[row, 12 + i], math.cos(angle), abs_tol=1e-12)


def test_rope_turns_complex_numbers():
    q, _, _ = qkv()
    rope = made(RoPE)
    state, _ = states(rope)
    turned = rope.rotate(q, q, state, state)[0]
    for i in range(K // 2):
        for row in range(T):
            before = torch.complex(q[..., row, i], q[..., row, i + K // 2])
            angle = (S - T + row) * 10_000 ** (-2 * i / K)
            after = before * complex(math.cos(angle), math.sin(angle))
            close(torch.complex(turned[..., row, i], turned[..., row, i + K // 2]), after, 1e-12)


def test_xpos_formula():
    q, k, _ = qkv()
    xpos = made(XPos, scale=4.0)
    turned_q, turned_k = xpos.rotate(q, k, *states(xpos))
    found = turned_q @ turned_k.transpose(-2, -1)
    for row, n, m in pairs():
        expected = 0
        for i in range(K // 2):
            a, b = (torch.complex(x[..., i], x[..., i + K // 2]) for x in (q[:, :, row], k[:, :, m]))
            angle = (n - m) * 10_000 ** (-2 * i / K)
            zeta = (2 * i / K + 0.4) / 1.4
            product = a * b.conj() * complex(math.cos(angle), math.sin(angle))
            expected = expected + product.real * zeta ** ((n - m) / 4)
        close(found[:, :, row, m], expected, 1e-11)


def test_shaw_formula():
    q, k, v = qkv()
    shaw = made(Shaw, max_distance=4)
    visible = Visibility(Causal(), Sites(torch.arange(S - T, S)[None]), Sites(torch.arange(S)[None]))
    weights = EagerKernel().weights(q, k, visible, shaw.bias(q, k, *states(shaw)))
    found = weights @ v + shaw.values(weights, *states(shaw))
    for row in range(T):
        i = S - T + row
        clip = [max(-4, min(4, j - i)) + 4 for j in range(i + 1)]
        scores = [(q[:, :, row] * (k[:, :, j] + shaw.key_table[clip[j]])).sum(-1) / K**0.5 for j in range(i + 1)]
        alpha = torch.stack(scores, -1).softmax(-1)
        expected = sum(alpha[..., j, None] * (v[:, :, j] + shaw.value_table[clip[j]]) for j in range(i + 1))
        close(found[:, :, row], expected, 1e-12)


def test_fire_formula():
    fire = made(FIRE, width=5, threshold=10.0)
    found = bias(fire)
    c = fire.steepness.abs().item()
    limit = fire.threshold_factor.abs().item() * 10.0
    for row, i, j in pairs():
        quotient = math.log(c * abs(i - j) + 1) / (math.log(c * max(i, limit) + 1) + 1e-6)
        hidden = torch.relu(quotient * fire.hidden_weight + fire.hidden_bias)
        close(found[0, :, row, j], fire.output_weight @ hidden + fire.output_bias, 1e-12)


def test_cope_formula():
    q, k, _ = qkv()
    cope = made(CoPE, size=4)
    found = bias(cope)
    for row, i, j in pairs():
        if j > i:
            continue
        gates = [torch.sigmoid((q[:, :, row] * k[:, :, n]).sum(-1) / K**0.5) for n in range(j, i + 1)]
        p = sum(gates).clamp(max=3)
        low, high = (cope.table[x.long()] for x in (p.floor(), p.ceil()))
        share = (p - p.floor()).unsqueeze(-1)
        close(found[:, :, row, j], (q[:, :, row] * (share * high + (1 - share) * low)).sum(-1), 1e-12)


def test_interpolated_table_reads_between_rows():
    long = made(InterpolatedLearned, factor=4.0, trained_len=5)
    assert long.table.shape == (5, 24) and long.reach == 20
    x = long.embed(torch.zeros(1, 20, 24, dtype=torch.float64), long.prepare(torch.arange(20)[None]))[0]
    close(x[8], long.table[2], 1e-12)
    close(x[6], (long.table[1] + long.table[2]) / 2, 1e-12)
    with pytest.raises(SizeError, match="dims.max_len"):
        long.prepare(torch.arange(21)[None])
    same = made(Learned)
    unstretched = made(InterpolatedLearned, factor=1.0)
    unstretched.load_state_dict(same.state_dict())
    zeros, positions = torch.zeros(1, 64, 24, dtype=torch.float64), torch.arange(64)[None]
    close(unstretched.embed(zeros, positions), same.embed(zeros, positions), 1e-12)


# --- blocks, single indices, length ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, cls in POSITIONS.items() if cls(DIMS).has_bias])
@pytest.mark.parametrize("rows", [1, 2])
def test_bias_serves_blocks_and_single_indices(name, rows):
    position = randomised(POSITIONS[name](DIMS).double()).eval()
    q, k, _ = qkv()
    k = k[:, :1]
    k_positions = torch.stack([torch.arange(S), (torch.arange(S) - 3).clamp(min=0)])[:rows]
    q_positions = k_positions[:, S - T :]
    found = position.bias(q, k, position.prepare(q_positions), position.prepare(k_positions))
    whole = found(ALL, ALL).expand(B, H, T, S)
    for a in (slice(0, 4), slice(4, 8), slice(8, None)):
        for b in (slice(None, 5), slice(5, 10), slice(10, 14)):
            close(found(a, b).expand(B, H, -1, -1), whole[:, :, a, b], 1e-12)
    at = found.at
    for size in (S, T, H, B):
        at = torch.vmap(at, in_dims={S: (None, None, None, 0), T: (None, None, 0, None), H: (None, 0, None, None),
                                     B: (0, None, None, None)}[size])  # fmt: skip
    close(at(*(torch.arange(n) for n in (B, H, T, S))), whole, 1e-12)


def test_dynamic_ntk_decodes_past_the_trained_length():
    dims = Dims(d_model=24, n_layers=1, n_heads=3, max_len=8)
    stack = Stack(dims, position=lambda d: RoPE(d, scaling=DynamicNTK), kernel=EagerKernel())
    stack = randomised(stack.double()).eval()
    x = torch.randn(2, 20, 24, dtype=torch.float64)
    cache = stack.new_cache(2, 20)
    for n in range(20):
        y, cache, _ = stack(x[:, n : n + 1], cache=cache)
        close(y[:, 0], stack(x[:, : n + 1])[0][:, -1], 1e-10)  # one layer: the last token is that of the whole text
    assert not torch.allclose(stack(x)[0][:, 5], stack(x[:, :8])[0][:, 5])


IMPOSSIBLE = [
    ("dims.head_dim", lambda: RoPE(Dims(d_model=6, n_heads=2))),
    ("dims.head_dim", lambda: XPos(Dims(d_model=6, n_heads=2))),
    ("position.share", lambda: RoPE(DIMS, share=0.0)),
    ("position.share", lambda: RoPE(DIMS, share=0.1)),
    ("scaling.factor", lambda: RoPE(DIMS, scaling=lambda d: YaRN(d, 0.5))),
    ("position.scaling", lambda: RoPE(Dims(d_model=4, n_heads=2), scaling=NTK)),
    ("scaling.high", lambda: Llama3Scaling(DIMS, low=4.0)),
    ("scaling.trained_len", lambda: LinearScaling(DIMS, trained_len=0)),
    ("dims.d_model", lambda: Sinusoidal(Dims(d_model=9, n_heads=3))),
    ("dims.max_len", lambda: Learned(Dims())),
    ("position.factor", lambda: InterpolatedLearned(DIMS, 0.5)),
    ("position.buckets", lambda: RelativeBias(DIMS, 3)),
    ("position.buckets", lambda: RelativeBias(DIMS, 2)),
    ("position.max_distance", lambda: RelativeBias(DIMS, 32, 8)),
    ("position.max_distance", lambda: CausalRelativeBias(DIMS, 32, 16)),
    ("position.max_distance", lambda: Shaw(DIMS, 0)),
    ("position.size", lambda: CoPE(DIMS, 1)),
    ("position.threshold", lambda: FIRE(DIMS, threshold=0.0)),
    ("position.max_position", lambda: Randomised(DIMS, max_position=100)),
]


@pytest.mark.parametrize(("key", "build"), IMPOSSIBLE)
def test_impossible_sizes_are_refused_by_key(key, build):
    with pytest.raises(SizeError) as caught:
        build()
    assert caught.value.key == key and "\n" not in str(caught.value)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_network_starts_its_position_from_the_seed(position):
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(DecoderOnly(Vocabulary(5), DIMS, position=POSITIONS[position], kernel=EagerKernel()))
    for name, a in networks[0].stack.position.named_parameters():
        assert a.isfinite().all() and a.abs().max() < 3, name
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    part = networks[0].stack.position
    if isinstance(part, FIRE):
        assert float(part.steepness) == pytest.approx(0.1) and float(part.threshold_factor) == 1
    if isinstance(part, CoPE):
        assert not part.table.any()
