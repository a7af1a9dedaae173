"""Every kernel against the eager one: values and gradients, whatever the mask, the groups, the lengths and the type."""

from functools import partial

import pytest
import torch
from torch import Tensor

from lit_transformer.blocks import ALiBi, Attention, Layer, Stack, blocked, kernels, products, schedule
from lit_transformer.blocks.context import Visibility
from lit_transformer.blocks.flex import FlexKernel
from lit_transformer.blocks.kernels import BlockedKernel, EagerKernel, FastestKernel, Kernel, SdpaKernel
from lit_transformer.blocks.masks import Causal, Full, GlobalTokens, Mask, PrefixCausal, Sinks, Sites, SlidingWindow
from lit_transformer.dims import Dims, SizeError

CAPPING = [BlockedKernel(8), BlockedKernel(8, keep_up_to=0), FastestKernel(), FlexKernel()]
KERNELS = [SdpaKernel(), BlockedKernel(), *CAPPING]
MASKS = [Full(), Causal(), Causal() & SlidingWindow(5), Causal() & (SlidingWindow(3) | Sinks(2)), GlobalTokens(2)]


def visibility(mask: Mask, t: int, s: int, documents: Tensor | None = None, prefix: Tensor | None = None) -> Visibility:
    k = Sites(torch.arange(s).unsqueeze(0), documents, prefix)
    q = k.map(lambda field: field[..., s - t :])
    return Visibility(mask, q, k)


def inputs(b: int, h: int, g: int, t: int, s: int, k: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((b, t, h, k), (b, s, g, k), (b, s, g, k))
    return [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def run(kernel: Kernel, qkv: list[Tensor], visible: Visibility, soft_cap: float | None = None) -> list[Tensor]:
    """Output and gradients."""
    y = kernel(*qkv, visible, soft_cap=soft_cap)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y, *torch.autograd.grad((y * weight).sum(), qkv)]


def agree(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert torch.allclose(a, b, atol=tolerance, rtol=tolerance), (a - b).abs().max()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{type(k).__name__}{vars(k).get('block', '')}")
@pytest.mark.parametrize("mask", MASKS, ids=repr)
@pytest.mark.parametrize(("h", "g", "t", "s"), [(2, 2, 20, 20), (4, 2, 7, 19), (4, 1, 16, 16), (2, 2, 1, 9)])
def test_agrees_with_eager(kernel: Kernel, mask: Mask, h: int, g: int, t: int, s: int) -> None:
    visible = visibility(mask, t, s)
    agree(run(kernel, inputs(3, h, g, t, s), visible), run(EagerKernel(), inputs(3, h, g, t, s), visible), 1e-10)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{type(k).__name__}{vars(k).get('block', '')}")
@pytest.mark.parametrize("mask", [Causal(), Full(), Causal() & SlidingWindow(4)], ids=repr)
def test_packed_documents_and_padding_that_sees_nothing(kernel: Kernel, mask: Mask) -> None:
    documents = torch.tensor([[0] * 9 + [1] * 11, [-1] * 10 + [3] * 4 + [4] * 6, [-1] * 20, [7] * 18 + [-1] * 2])
    visible = visibility(mask, 20, 20, documents)
    ours, theirs = run(kernel, inputs(4, 2, 1, 20, 20), visible), run(EagerKernel(), inputs(4, 2, 1, 20, 20), visible)
    agree(ours, theirs, 1e-10)
    assert not ours[0][2].any() and not ours[1][2].any()  # zeros, not NaN, forward and backward


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{type(k).__name__}{vars(k).get('block', '')}")
def test_prefix_of_each_row(kernel: Kernel) -> None:
    prefix = torch.arange(20).unsqueeze(0) < torch.tensor([[0], [3], [13], [20]])
    visible = visibility(PrefixCausal(), 20, 20, prefix=prefix)
    agree(run(kernel, inputs(4, 2, 2, 20, 20), visible), run(EagerKernel(), inputs(4, 2, 2, 20, 20), visible), 1e-10)


@pytest.mark.parametrize("kernel", CAPPING, ids=lambda k: f"{type(k).__name__}{vars(k).get('block', '')}")
def test_capped_scores(kernel: Kernel) -> None:
    """As eager does it; and eager as Gemma 2's formula says, which bites at scores around the cap."""
    visible = visibility(Causal() & SlidingWindow(7), 20, 20)
    ours = run(kernel, inputs(3, 4, 2, 20, 20), visible, 0.5)
    agree(ours, run(EagerKernel(), inputs(3, 4, 2, 20, 20), visible, 0.5), 1e-10)
    q, k, v = inputs(3, 2, 2, 20, 20)
    scores = ((q @ k.mT / 2) / 0.5).tanh() * 0.5
    expected = scores.masked_fill(~visible.dense, -torch.inf).softmax(-1) @ v
    torch.testing.assert_close(EagerKernel()(q, k, v, visible, soft_cap=0.5), expected)
    assert not torch.allclose(EagerKernel()(q, k, v, visible), expected)


def test_what_a_kernel_cannot_do_is_refused_when_the_network_is_built() -> None:
    dims = Dims(16, 1, 2, max_len=8)
    capped = partial(Layer, attention=partial(Attention, soft_cap=50.0))
    with pytest.raises(SizeError, match="SdpaKernel cannot cap"):
        Stack(dims, capped, kernel=SdpaKernel())
    Stack(dims, capped, kernel=FlexKernel())
    with pytest.raises(SizeError, match="attention.dropout"):
        Stack(dims, partial(Layer, attention=partial(Attention, dropout=0.1)), kernel=FlexKernel())
    with pytest.raises(SizeError, match="soft_cap"):
        Attention(dims, soft_cap=0.0)


def test_flex_attention_is_what_is_written_out() -> None:
    """PyTorch's own flex attention, which has no gradient on the CPU, with mask, documents, groups, bias and cap."""
    documents = torch.tensor([[0] * 90 + [1] * 60, [-1] * 30 + [2] * 120])
    positions, dims = torch.arange(150).unsqueeze(0), Dims(16, 1, 4, 2, max_len=256)
    q, k, v = (x.detach().float() for x in inputs(2, 4, 2, 150, 150))
    for mask in (Causal() & SlidingWindow(40), Full()):
        for bias in (None, ALiBi(dims).bias(q, k, positions, positions)):
            visible = visibility(mask, 150, 150, documents)
            expected = EagerKernel()(q, k, v, visible, bias, soft_cap=2.0)
            with torch.no_grad():
                fused = FlexKernel()(q, k, v, visible, bias, soft_cap=2.0)
            torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(FlexKernel()(q, k, v, visible, bias, soft_cap=2.0), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("mask", MASKS, ids=repr)
@pytest.mark.parametrize("soft_cap", [None, 5.0])
def test_compiled_flex_attention(mask: Mask, soft_cap: float | None) -> None:
    """Values and gradients on the accelerator, against the eager kernel there."""
    index = torch.arange(300, device="cuda").unsqueeze(0)
    visible = Visibility(mask, Sites(index), Sites(index))
    found = []
    for kernel in (FlexKernel(), EagerKernel()):
        qkv = [x.detach().float().cuda().requires_grad_() for x in inputs(2, 4, 2, 300, 300, 32)]
        found.append(run(kernel, qkv, visible, soft_cap))
    agree(*found, 2e-2)


def test_values_may_have_another_size_than_keys() -> None:
    q, k, _ = inputs(2, 4, 2, 20, 20)
    v = torch.randn(2, 2, 20, 6, dtype=torch.float64, requires_grad=True)
    visible = visibility(Causal(), 20, 20)
    agree(run(BlockedKernel(8), [q, k, v], visible), run(EagerKernel(), [q, k, v], visible), 1e-10)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{type(k).__name__}{vars(k).get('block', '')}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_stays_near_float64(kernel: Kernel, dtype: torch.dtype) -> None:
    visible = visibility(Causal(), 40, 40)
    reference = run(EagerKernel(), inputs(2, 2, 2, 40, 40), visible)
    ours = run(kernel, [x.detach().to(dtype).requires_grad_() for x in inputs(2, 2, 2, 40, 40)], visible)
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    agree([each.double() for each in ours], reference, tolerance)
    assert all(each.dtype == dtype for each in ours)


@pytest.mark.parametrize("native", [True, False])
def test_both_kinds_of_processor(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without bfloat16 products the result is as near to the truth as rounding allows."""
    for module in (products, blocked, kernels):
        monkeypatch.setattr(module, "multiplies", lambda dtype: native)
    visible = visibility(Causal(), 40, 40)
    reference = run(EagerKernel(), inputs(2, 4, 2, 40, 40), visible)
    for kernel in KERNELS:
        ours = run(kernel, [x.detach().bfloat16().requires_grad_() for x in inputs(2, 4, 2, 40, 40)], visible)
        agree([each.double() for each in ours], reference, 6e-2)


@pytest.mark.parametrize("keep_up_to", [1, 1024])
def test_inside_an_autocast_region(keep_up_to: int) -> None:
    """Forward runs under autocast and backward does not: both take their products in the same type."""
    kernel, visible = BlockedKernel(block=8, keep_up_to=keep_up_to), visibility(Causal(), 20, 20)
    q, k, v = (x.detach().to(torch.bfloat16).requires_grad_() for x in inputs(2, 4, 2, 20, 20))
    with torch.autocast("cpu", torch.bfloat16):
        y = kernel(q, k, v, visible)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    exact = EagerKernel()(q.detach().double(), k.detach().double(), v.detach().double(), visible)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=3e-2)
    assert all(x.grad is not None and x.grad.dtype == torch.bfloat16 and x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("kernel", [EagerKernel(), SdpaKernel(), BlockedKernel(8), BlockedKernel(8, keep_up_to=0)])
def test_dropout_keeps_the_mean_of_values_and_gradients(kernel: Kernel) -> None:
    visible = visibility(Causal(), 12, 12)
    once = inputs(1, 2, 2, 12, 12)
    many = [x.detach().expand(4000, -1, -1, -1).clone().requires_grad_() for x in once]
    torch.manual_seed(0)
    y = kernel(*many, visible, dropout=0.3)
    expected = EagerKernel()(*once, visible)
    assert torch.allclose(y.mean(0, keepdim=True), expected, atol=0.06)
    assert not torch.allclose(y[0], expected[0], atol=1e-3)
    y.sum().backward()
    expected.sum().backward()
    for ours, theirs in zip(many, once, strict=True):
        assert torch.allclose(ours.grad.mean(0, keepdim=True), theirs.grad, atol=0.06)


@pytest.mark.parametrize("keep_up_to", [0, 1024])
def test_dropout_of_forward_is_that_of_backward(keep_up_to: int) -> None:
    """For a fixed draw, the gradient is the numerical derivative."""
    visible, qkv = visibility(Causal(), 9, 9), inputs(1, 2, 1, 9, 9)
    kernel = BlockedKernel(4, keep_up_to)

    def fixed(*each: Tensor) -> Tensor:
        torch.manual_seed(3)
        return kernel(*each, visible, dropout=0.4)

    assert torch.autograd.gradcheck(fixed, qkv)


def test_a_window_skips_what_it_hides_and_keeps_nothing_when_told_so() -> None:
    visible = visibility(Causal() & SlidingWindow(64), 1024, 1024)
    pieces = schedule.schedule(visible, 1, 1, 64)
    assert max(sum(run.stop - run.start for run in piece.keys) for piece in pieces) == 128
    kept: list[int] = []
    qkv = inputs(1, 1, 1, 1024, 1024)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        BlockedKernel(64, keep_up_to=512)(*qkv, visible)
    assert sum(kept) == sum(x.numel() for x in qkv)


def test_a_schedule_is_made_once() -> None:
    first = schedule.schedule(visibility(Causal(), 32, 32), 2, 1, 8)
    assert schedule.schedule(visibility(Causal(), 32, 32), 2, 1, 8) is first
    packed = visibility(Causal(), 32, 32, torch.zeros(2, 32, dtype=torch.long))
    assert schedule.schedule(packed, 2, 1, 8) is schedule.schedule(packed, 2, 1, 8)


def test_impossible_choices_are_named() -> None:
    with pytest.raises(SizeError, match="kernel.block"):
        BlockedKernel(0)
    assert not BlockedKernel.takes_bias
    with pytest.raises(SizeError, match="choose SdpaKernel"):
        BlockedKernel()(*inputs(1, 1, 1, 4, 4), visibility(Causal(), 4, 4), lambda rows, columns: torch.zeros(1))


def test_the_fastest_is_chosen_by_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FastestKernel()

    def chosen(t: int, mask: Mask, dtype: torch.dtype = torch.float32, grad: bool = True) -> Kernel:
        q = torch.zeros(1, 1, t, 2, dtype=dtype, requires_grad=grad)
        return kernel.choose(q, q, visibility(mask, t, t))

    assert chosen(256, Causal()) is kernel.sdpa
    assert chosen(512, Causal()) is kernel.blocked
    assert chosen(512, Causal(), grad=False) is kernel.sdpa
    assert chosen(512, Full()) is kernel.sdpa
    assert chosen(2048, Causal()) is kernel.sdpa
    assert chosen(2048, Causal() & SlidingWindow(64)) is kernel.blocked
    monkeypatch.setattr(kernels, "multiplies", lambda dtype: True)
    assert chosen(32, Full(), torch.bfloat16) is kernel.blocked
    monkeypatch.setattr(kernels, "multiplies", lambda dtype: dtype == torch.float32)
    assert chosen(32, Full(), torch.bfloat16) is kernel.sdpa
