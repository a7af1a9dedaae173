"""What every norm, residual order, feed-forward and attention must keep to inside a network: all are found by themselves."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from discovery import close, randomised, subclasses
from torch import Tensor

from lit_transformer.blocks import (
    Attention,
    BaseAttention,
    BatchNorm,
    BiasBalancing,
    Causal,
    CrossAttention,
    FeedForward,
    Layer,
    LinearAttention,
    MixtureOfExperts,
    Norm,
    Residual,
    RMSNorm,
    RoPE,
    SlidingWindow,
    Stack,
    SwiGLU,
)
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import DecoderOnly, Network
from lit_transformer.recipe import build, find_recipe, merge_recipes, read_recipe, read_text, shipped_recipes
from lit_transformer.recipe.tree import plain
from lit_transformer.vocabulary import Vocabulary

DIMS = Dims(d_model=16, n_layers=2, n_heads=4, head_dim=4, d_ff=24, max_len=64)
LENGTH = 12

PARTS = [pytest.param({"norm": cls}, id=cls.__name__) for cls in subclasses(Norm)]
PARTS += [pytest.param({"residual": cls}, id=cls.__name__) for cls in subclasses(Residual)]
PARTS += [pytest.param({"feed_forward": cls}, id=cls.__name__) for cls in subclasses(FeedForward)]
PARTS += [
    pytest.param({"attention": cls}, id=cls.__name__)
    for cls in subclasses(BaseAttention)
    if not issubclass(cls, CrossAttention)  # stands beside a layer's own attention: tests of it are its own
]
PARTS += [pytest.param({"attention": partial(Attention, qk_norm=RMSNorm)}, id="Attention[qk_norm]")]
ATTENTIONS = [part for part in PARTS if "attention" in part.values[0]]
EVERY_PART = pytest.mark.parametrize("part", PARTS)


def stack(part: dict, dims: Dims = DIMS) -> Stack:
    """Two small layers in float64, nothing at a start of zero."""
    return randomised(Stack(dims, partial(Layer, **part)).double(), std=0.4).eval()


def stream(batch: int = 2, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randn(batch, length, DIMS.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@EVERY_PART
def test_nobody_sees_what_comes_later(part):
    built, x = stack(part), stream()
    before = built(x)[0]
    x[:, 7] = x[:, 7].flip(-1)
    after = built(x)[0]
    assert torch.equal(before[:, :7], after[:, :7]) or torch.allclose(before[:, :7], after[:, :7], 1e-12, 1e-12)
    assert not torch.allclose(before[:, 7], after[:, 7])


@EVERY_PART
@pytest.mark.parametrize("chunks", [[1] * LENGTH, [5, 1, 4, 2]], ids=["tokens", "chunks"])
def test_cache_changes_nothing(part, chunks):
    built, x = stack(part), stream()
    expected, found, cache = built(x)[0], [], built.new_cache(2, LENGTH + 2)
    for piece in x.split(chunks, dim=1):
        y, cache, _ = built(piece, cache=cache)
        found.append(y)
    close(torch.cat(found, 1), expected, 1e-9)


@EVERY_PART
def test_packed_is_unpacked(part):
    built, a, b = stack(part), stream(1, 5), stream(1, 7, seed=1)
    documents = torch.tensor([[0] * 5 + [1] * 7])
    positions = torch.tensor([[*range(5), *range(7)]])
    y = built(torch.cat((a, b), 1), positions=positions, documents=documents)[0]
    close(y[:, :5], built(a)[0], 1e-9)
    close(y[:, 5:], built(b)[0], 1e-9)


@EVERY_PART
def test_left_padded_batch_is_single_rows_and_goes_on_so(part):
    built, a, b, more = stack(part), stream(1, 3), stream(1, 6, seed=1), stream(2, 1, seed=2)
    x = torch.cat((torch.cat((torch.full((1, 3, DIMS.d_model), 9.0), a), 1), b)).double()
    documents = torch.tensor([[-1] * 3 + [0] * 3, [0] * 6])
    positions = (documents >= 0).cumsum(1).sub(1).clamp(min=0)
    cache = built.new_cache(2, 8)
    y, cache, _ = built(x, positions=positions, documents=documents, cache=cache)
    next_y, cache, _ = built(more, positions=torch.tensor([[3], [6]]), documents=torch.zeros(2, 1).long(), cache=cache)
    for row, (single, padding) in enumerate(((a, 3), (b, 0))):
        expected = built(torch.cat((single, more[row : row + 1]), 1))[0]
        close(torch.cat((y[row : row + 1, padding:], next_y[row : row + 1]), 1), expected, 1e-9)
    assert torch.isfinite(y).all()


@EVERY_PART
def test_reordered_cache_is_another_batch(part):
    built, x, more = stack(part), stream(3), stream(2, 1, seed=2)
    cache = built(x, cache=built.new_cache(3, LENGTH + 1))[1].reorder(torch.tensor([2, 0]))
    expected = built(torch.cat((x[[2, 0]], more), 1))[0][:, -1:]
    close(built(more, cache=cache)[0], expected, 1e-9)


@EVERY_PART
@pytest.mark.parametrize("training", [True, False])
def test_rows_of_padding_are_finite_forwards_and_backwards(part, training):
    built, x = stack(part).train(training), stream().requires_grad_()
    documents = torch.zeros(2, LENGTH).long()
    documents[0] = -1
    documents[1, :3] = -1
    y, _, auxiliary = built(x, documents=documents)
    (y[1, 3:].square().sum() + sum(auxiliary.losses.values())).backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in built.parameters() if p.grad is not None)
    close(x.grad[0], torch.zeros_like(x.grad[0]), 0.0)


@pytest.mark.parametrize("part", ATTENTIONS)
def test_padding_gets_no_attention(part):
    layer = stack(part).layers[0]
    context = {}
    layer.attention.register_forward_hook(lambda module, given, result: context.update(y=result[0]))
    documents = torch.full((2, LENGTH), -1)
    Stack.forward(_around(layer), stream(), documents=documents)
    assert torch.equal(context["y"], torch.zeros_like(context["y"]))


def _around(layer: Layer) -> Stack:
    built = Stack(Dims(16, 1, 4, head_dim=4), position=RoPE).double()
    built.layers[0] = layer
    return built


@EVERY_PART
def test_autocast_keeps_the_stream(part):
    built = Stack(DIMS, partial(Layer, **part))
    randomised(built)
    with torch.autocast("cpu", torch.bfloat16):
        y, _, auxiliary = built(stream().float())
    assert y.dtype == torch.float32 and torch.isfinite(y).all()
    assert all(loss.dtype == torch.float32 for loss in auxiliary.losses.values())


@EVERY_PART
def test_dropout_in_training_only(part):
    if "attention" in part and part["attention"] is not LinearAttention:
        part = part | {"attention": partial(part["attention"], dropout=0.5)}
    built = stack(part | {"dropout": 0.5})
    x = stream()
    assert torch.equal(built(x)[0], built(x)[0])
    built.train()
    assert not torch.equal(built(x)[0], built(x)[0])


@EVERY_PART
def test_a_copy_and_a_state_dict_are_the_same_network(part):
    built, x = stack(part), stream()
    other = Stack(DIMS, partial(Layer, **part)).double().eval()
    other.load_state_dict(built.state_dict())
    assert torch.equal(other(x)[0], built(x)[0])
    assert torch.equal(copy.deepcopy(built)(x)[0], built(x)[0])


@EVERY_PART
def test_meta_device_and_initialise_give_the_same_network(part):
    vocabulary, tokens = Vocabulary(11), torch.arange(10).view(1, 10)
    torch.manual_seed(3)
    expected = DecoderOnly(vocabulary, DIMS, partial(Layer, **part)).eval()
    with torch.device("meta"):
        found = DecoderOnly(vocabulary, DIMS, partial(Layer, **part)).eval()
    found.to_empty(device="cpu")
    found.head.weight = found.embedding.weight
    found.initialise(3)
    assert torch.equal(found(tokens).logits, expected(tokens).logits)


def test_pattern_local_local_global():
    local = partial(Layer, mask=Causal() & SlidingWindow(3))
    built = randomised(Stack(Dims(16, 3, 4, head_dim=4), [local, local, Layer]).double(), std=0.4).eval()
    assert [layer.own_mask is not None for layer in built.layers] == [True, True, False]
    x = stream()
    before = built.layers[0](x, _context(built, x, built.layers[0].own_mask))[0]
    x[:, 2] = x[:, 2].flip(-1)
    after = built.layers[0](x, _context(built, x, built.layers[0].own_mask))[0]
    assert torch.equal(before[:, 5:], after[:, 5:]) and not torch.equal(before[:, 4], after[:, 4])
    x, whole = stream(), []
    y = built(x)[0]
    cache = built.new_cache(2, LENGTH)
    for piece in x.split(1, dim=1):
        out, cache, _ = built(piece, cache=cache)
        whole.append(out)
    close(torch.cat(whole, 1), y, 1e-9)


def _context(built, x, mask):
    from lit_transformer.blocks import Context, Sites, Visibility

    positions = torch.arange(x.shape[1]).unsqueeze(0)
    state = built.position.prepare(positions, torch.float64)
    sites = Sites(positions)
    return Context(Visibility(mask, sites, sites), built.position, state, state, built.kernel)


def test_pattern_dense_and_mixture_with_a_layer_position():
    dense, mixture = Layer, partial(Layer, feed_forward=MixtureOfExperts, position=partial(RoPE, base=100.0))
    built = Stack(Dims(16, 4, 4, head_dim=4), [dense, mixture])
    kinds = [type(layer.feed_forward) for layer in built.layers]
    assert kinds == [SwiGLU, MixtureOfExperts] * 2
    auxiliary = randomised(built)(stream().float())[2]
    assert sorted(auxiliary.stats) == ["layer1/expert_load", "layer3/expert_load"]
    assert list(auxiliary.losses) == ["load_balancing"]


def test_an_empty_pattern_is_refused():
    with pytest.raises(SizeError, match="layer: is an empty list"):
        Stack(DIMS, [])


def test_what_cannot_work_together_is_refused_when_built():
    from lit_transformer.blocks import ALiBi, EagerKernel, Full, LatentAttention, Shaw
    from lit_transformer.blocks import DifferentialAttention as Differential

    with pytest.raises(SizeError, match="mask: .*LinearAttention"):
        Stack(DIMS, partial(Layer, attention=LinearAttention), mask=Full())
    with pytest.raises(SizeError, match="position: ALiBi"):
        Stack(DIMS, partial(Layer, attention=LinearAttention), position=ALiBi)
    for attention in (Differential, LatentAttention):
        with pytest.raises(SizeError, match="position: Shaw"):
            Stack(DIMS, partial(Layer, attention=attention), position=Shaw, kernel=EagerKernel())


def test_narrow_types_leave_running_numbers_wide():
    built = Stack(DIMS, partial(Layer, norm=BatchNorm, feed_forward=partial(MixtureOfExperts, balance=[BiasBalancing])))
    built.to(torch.bfloat16)
    assert {b.dtype for b in built.buffers()} <= {torch.float32, torch.int64}
    assert {p.dtype for p in built.parameters()} == {torch.bfloat16}


ROOMS = (["norm"], ["residual"], ["feed_forward"], ["attention"])
OVERLAYS = [each.name for each in shipped_recipes() if each.name.split("/")[1:-1] in ROOMS]
BASE = """
model:
  network:
    class_path: DecoderOnly
    dims: {d_model: 32, n_layers: 3, n_heads: 4}
    layer: {class_path: Layer, norm: {class_path: LayerNorm, bias: false}}
"""


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_shipped_overlay_changes_one_thing_and_builds(name):
    overlay = read_recipe(*find_recipe(name))
    changed = plain(overlay)["model"]["network"]
    assert len(changed) == 1 or name == "overlays/attention/soft_cap"  # caps scores and logits
    if isinstance(changed.get("layer"), dict):
        assert len(changed["layer"]) == 2 and changed["layer"]["class_path"] == "Layer"
    config = plain(merge_recipes([read_text(BASE, "base.yaml"), overlay]))["model"]["network"]
    network = build(Callable[[Vocabulary], Network], config)(Vocabulary(11, max_len=12))
    output = network(torch.randint(0, 11, (2, 12)))
    assert output.logits.isfinite().all()
    (output.logits.square().sum() + sum(output.losses.values())).backward()
