"""What every mask, position and kernel must keep to, whoever wrote it: all subclasses are found by themselves."""

from dataclasses import replace

import pytest
import torch
from discovery import DIMS, KERNELS, MASKS, POSITIONS, causal, close, randomised
from torch import Tensor

from lit_transformer.blocks import (
    Causal,
    EagerKernel,
    Full,
    Kernel,
    Learned,
    Mask,
    PrefixCausal,
    Randomised,
    Sites,
    Stack,
    Visibility,
)
from lit_transformer.dims import SizeError

LENGTH = 20


def stack(mask: Mask | None = None, position=POSITIONS["RoPE"], kernel: Kernel | None = None, dims=DIMS) -> Stack:
    """Two small layers in float64."""
    built = Stack(dims, position=position, mask=mask or Causal(), kernel=kernel or EagerKernel())
    return randomised(built.double()).eval()


def stream(batch: int = 2, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randn(batch, length, DIMS.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


EVERY_PART = [pytest.param(dict(mask=causal(mask)), id=name) for name, mask in MASKS.items()]
EVERY_PART += [pytest.param(dict(position=position), id=name) for name, position in POSITIONS.items()]

# That the kernels agree is tested below, so a position needs one of them only.
WITH_KERNELS = [
    pytest.param(part.values[0], kernel, id=f"{part.id}-{kernel}")
    for part in EVERY_PART for kernel in KERNELS
    if "mask" in part.values[0] or kernel == "EagerKernel"
]  # fmt: skip


@pytest.mark.parametrize("part", EVERY_PART)
def test_nobody_sees_what_comes_later(part):
    built, x = stack(**part), stream()
    before = built(x)[0]
    x[:, 13] += 1
    after = built(x)[0]
    assert torch.equal(before[:, :13], after[:, :13])
    assert not torch.equal(before[:, 13], after[:, 13])


@pytest.mark.parametrize(("part", "kernel"), WITH_KERNELS)
def test_cache_changes_nothing(part, kernel):
    built, x = _with_kernel(part, kernel), stream()
    expected = built(x)[0]
    token_by_token = [[1] * LENGTH] if kernel == "EagerKernel" else []
    for chunks in ([7, 1, 1, 6, 5], *token_by_token):
        cache, found = built.new_cache(2, LENGTH + 3), []
        for piece in x.split(chunks, dim=1):
            y, cache, _ = built(piece, cache=cache)
            found.append(y)
        close(torch.cat(found, 1), expected, 1e-10)


@pytest.mark.parametrize(("part", "kernel"), WITH_KERNELS)
def test_packing_changes_nothing(part, kernel):
    built, x = _with_kernel(part, kernel), stream(1)
    lengths = [6, 9, 2, 3]
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths)).unsqueeze(0)
    positions = torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0)
    packed = built(x, positions, documents)[0]
    alone = torch.cat([built(piece)[0] for piece in x.split(lengths, dim=1)], 1)
    close(packed, alone, 1e-10)


@pytest.mark.parametrize(("part", "kernel"), WITH_KERNELS)
def test_left_padding_changes_nothing(part, kernel):
    built, x = _with_kernel(part, kernel), stream(3)
    pads = [0, 4, 15]
    documents = torch.stack([torch.where(torch.arange(LENGTH) < pad, -1, 0) for pad in pads])
    positions = torch.stack([(torch.arange(LENGTH) - pad).clamp(min=0) for pad in pads])
    whole = built(x, positions, documents)[0]
    cache, found = built.new_cache(3, LENGTH), []
    for start, end in ((0, 16), (16, 17), (17, 20)):
        y, cache, _ = built(x[:, start:end], positions[:, start:end], documents[:, start:end], cache=cache)
        found.append(y)
    for b, pad in enumerate(pads):
        alone = built(x[b : b + 1, pad:])[0][0]
        close(whole[b, pad:], alone, 1e-10)
        close(torch.cat(found, 1)[b, pad:], alone, 1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_prefix_sees_itself_and_survives_the_cache(kernel):
    built, x = _with_kernel(dict(mask=PrefixCausal()), kernel), stream()
    prefix = torch.arange(LENGTH).unsqueeze(0) < torch.tensor([[6], [9]])
    whole = built(x, prefix=prefix)[0]
    cache, found = built.new_cache(2, LENGTH), []
    for start, end in ((0, 9), (9, 10), (10, 20)):
        y, cache, _ = built(x[:, start:end], prefix=prefix[:, start:end], cache=cache)
        found.append(y)
    close(torch.cat(found, 1), whole, 1e-10)
    assert not torch.allclose(whole[:, 0], built(x)[0][:, 0]), "the first token must see the rest of the prefix"


@pytest.mark.parametrize("position", POSITIONS)
def test_positions_serve_encoders(position):
    built, x = stack(Full(), POSITIONS[position]), stream(1)
    documents = torch.tensor([[0] * 8 + [1] * 12])
    positions = torch.cat([torch.arange(8), torch.arange(12)]).unsqueeze(0)
    packed = built(x, positions, documents)[0]
    close(packed, torch.cat([built(x[:, :8])[0], built(x[:, 8:])[0]], 1), 1e-10)


BIASED = [name for name, position in POSITIONS.items() if position(DIMS).has_bias]


def qkv(q_len: int, k_len: int, dtype=torch.float64, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((DIMS.n_heads, q_len), (DIMS.kv_heads, k_len), (DIMS.kv_heads, k_len))
    return [
        torch.randn(batch, heads, length, DIMS.head_size, generator=generator, dtype=dtype).requires_grad_()
        for heads, length in shapes
    ]


def attend(kernel: Kernel, visible: Visibility, q_len: int, k_len: int, position=None) -> list[Tensor]:
    """Result and gradients of queries, keys, values and the position's own parameters."""
    q, k, v = qkv(q_len, k_len)
    bias, parameters = None, []
    if position is not None:
        positions = torch.arange(k_len).unsqueeze(0)
        states = [position.prepare(x, torch.float64) for x in (positions[:, k_len - q_len :], positions)]
        bias, parameters = position.bias(q, k, *states), list(position.parameters())
    y = kernel(q, k, v, visible, bias)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = torch.autograd.grad((y * weights).sum(), [q, k, v, *parameters], allow_unused=True)
    return [y, *(torch.zeros(()) if each is None else each for each in gradients)]


def _sites(q_len: int, k_len: int, documents: Tensor | None = None) -> tuple[Sites, Sites]:
    k = Sites(torch.arange(k_len).unsqueeze(0), documents).with_start()
    return k.map(lambda field: field[..., k_len - q_len :]), k


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_agree_under_every_mask(mask, kernel):
    candidate = _kernel(kernel)
    for q_len, k_len, documents in (
        (20, 20, None), (7, 33, None), (1, 17, None), (20, 20, torch.tensor([[0] * 8 + [1] * 12, [-1] * 5 + [0] * 15])),
    ):  # fmt: skip
        visible = Visibility(MASKS[mask], *_sites(q_len, k_len, documents))
        expected = attend(EagerKernel(), visible, q_len, k_len)
        for found, wanted in zip(attend(candidate, visible, q_len, k_len), expected, strict=True):
            close(found, wanted, 1e-10)


@pytest.mark.parametrize("position", BIASED)
@pytest.mark.parametrize("kernel", [name for name, cls in KERNELS.items() if cls.takes_bias])
def test_kernels_agree_under_every_position(position, kernel):
    built = randomised(POSITIONS[position](DIMS).double()).eval()
    candidate = _kernel(kernel)
    for mask in (Causal(), MASKS["SlidingWindow"]):
        for q_len, k_len in ((20, 20), (7, 33), (1, 17)):
            visible = Visibility(mask, *_sites(q_len, k_len))
            expected = attend(EagerKernel(), visible, q_len, k_len, built)
            for found, wanted in zip(attend(candidate, visible, q_len, k_len, built), expected, strict=True):
                close(found, wanted, 1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bias", [None, "ALiBi"])
def test_who_sees_nothing_gets_zeros_and_no_gradient(kernel, bias):
    candidate = _kernel(kernel)
    position = POSITIONS[bias](DIMS).double() if bias else None
    if position is not None and not candidate.takes_bias:
        pytest.skip("refused when the network is built")
    documents = torch.tensor([[-1] * 12, [-1] * 5 + [0] * 7])
    y, dq, dk, dv = attend(candidate, Visibility(Causal(), *_sites(12, 12, documents)), 12, 12, position)
    for each in (y, dq, dk, dv):
        assert each.isfinite().all()
        assert not each[0].any() and not each[1, :, :5].any()
        assert each[1, :, 5:].any() or each is dq


@pytest.mark.parametrize("position", POSITIONS)
def test_only_relative_positions_survive_a_shift(position):
    built, x = stack(position=POSITIONS[position]), stream()
    positions = torch.arange(LENGTH).unsqueeze(0)
    here, there = built(x, positions)[0], built(x, positions + 1000)[0]
    difference = float((here - there).detach().abs().max())
    assert difference < 1e-9 if built.position.relative else difference > 1e-3


@pytest.mark.parametrize("position", POSITIONS)
def test_autocast_keeps_the_output_type(position):
    built = stack(position=POSITIONS[position]).float()
    x = stream().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = built(x)[0]
        assert y.dtype == stack(position=POSITIONS["NoPosition"]).float()(x)[0].dtype
    close(y.float(), built(x)[0], 0.1)
    y.float().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("position", POSITIONS)
def test_far_positions_in_bfloat16_are_those_of_float64(position):
    dims = replace(DIMS, max_len=8192)
    exact = randomised(POSITIONS[position](dims).double())
    coarse = randomised(POSITIONS[position](dims)).bfloat16()
    exact.load_state_dict(coarse.state_dict())
    exact.eval(), coarse.eval()
    positions = torch.arange(8000, 8016).unsqueeze(0)
    results = []
    for part, dtype in ((exact, torch.float64), (coarse, torch.bfloat16)):
        state = part.prepare(positions, torch.promote_types(dtype, torch.float32))
        q, k, _ = (each.detach().bfloat16().to(dtype) for each in qkv(16, 16))
        q, k = part.rotate(q, k, state, state)
        x = part.embed(stream(1, 16).bfloat16().to(dtype), state)
        bias = part.bias(q, k, state, state)
        scores = q @ k.transpose(-2, -1)
        results.append([x, scores, torch.zeros(()) if bias is None else bias(slice(None), slice(None))])
        assert q.dtype == k.dtype == x.dtype == dtype
    for precise, found in zip(*results, strict=True):
        close(found.double(), precise.double(), 0.03)


@pytest.mark.parametrize("position", POSITIONS)
def test_random_draws_keep_the_order_and_the_start_of_documents(position):
    torch.manual_seed(0)
    wrapped = Randomised(DIMS, POSITIONS[position], max_position=2048)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 0, 0, 1, 2, 3, 4]])
    drawn = wrapped.draw(positions)
    assert drawn.max() < 2048 and drawn.min() >= 0 and not torch.equal(drawn, positions)
    for before, after in zip(positions.tolist(), drawn.tolist(), strict=True):
        for i, j in zip(before, after, strict=True):
            for k, m in zip(before, after, strict=True):
                assert (i < k) == (j < m) and (i == k) == (j == m)
    built = stack(position=lambda dims: Randomised(dims, POSITIONS[position], max_position=2048))
    plain = stack(position=POSITIONS[position])
    built.load_state_dict({name.replace("position.", "position.position.", 1): value
                           for name, value in plain.state_dict().items()})  # fmt: skip
    close(built(stream())[0], plain(stream())[0], 1e-12)
    built.train()
    drawn = [built(stream())[0] for _ in range(2)]
    assert torch.equal(*drawn) == (position in ("NoPosition", "CoPE")), "only training draws, and anew each time"


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_what_a_kernel_cannot_take_is_refused_when_built(position, kernel):
    part = POSITIONS[position](DIMS)
    _kernel(kernel)
    if (part.has_bias and not KERNELS[kernel].takes_bias) or (part.has_values and not KERNELS[kernel].takes_values):
        with pytest.raises(SizeError) as caught:
            stack(position=POSITIONS[position], kernel=KERNELS[kernel]())
        assert all(name in str(caught.value) for name in ("kernel", kernel, type(part).__name__))


def test_learned_positions_end_with_an_error_that_says_so():
    built = stack(position=Learned, dims=replace(DIMS, max_len=16))
    with pytest.raises(SizeError, match="dims.max_len: .*16"):
        built(stream(1, 17))
    with pytest.raises(SizeError, match="dims.max_len"):
        built(stream(1, 2), torch.tensor([[15, 16]]))


def _kernel(name: str) -> Kernel:
    """The kernel, where this machine can run it."""
    kernel: Kernel = KERNELS[name]()
    q, k, v = (each.detach().float() for each in qkv(4, 4))
    try:
        kernel(q, k, v, Visibility(Causal(), *_sites(4, 4)))
    except SizeError as error:
        pytest.skip(str(error))
    return kernel


def _with_kernel(part: dict, name: str) -> Stack:
    try:
        return stack(**part, kernel=_kernel(name))
    except SizeError as error:
        if error.key != "kernel":
            raise
        pytest.skip(str(error))
