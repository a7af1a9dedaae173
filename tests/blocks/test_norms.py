import pytest
import torch
from discovery import close, subclasses
from torch import nn

from lit_transformer.blocks import (
    BatchNorm,
    Causal,
    Context,
    DynamicTanh,
    EagerKernel,
    LayerNorm,
    NoNorm,
    Norm,
    RMSNorm,
    RoPE,
    Sites,
    Visibility,
)
from lit_transformer.blocks.running import recomputing
from lit_transformer.dims import Dims, SizeError

DIMS = Dims(d_model=16, n_layers=1, n_heads=2)
NORMS = subclasses(Norm)


def context(documents):
    sites = Sites(torch.arange(documents.shape[1]).unsqueeze(0), documents)
    return Context(Visibility(Causal(), sites, sites), RoPE(DIMS), None, None, EagerKernel())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_type_stays(norm, dtype):
    built, x = norm(DIMS), torch.randn(2, 4, 3, 16, dtype=dtype)
    built = built.double() if dtype == torch.float64 else built  # narrow inputs meet wide weights under autocast
    assert built(x).dtype == dtype and built(x).shape == x.shape


def test_rms_norm_is_llamas():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    ours, theirs = RMSNorm(DIMS, eps=1e-6), LlamaRMSNorm(16, eps=1e-6)
    theirs.weight.data.normal_()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 5, 16)
    close(ours(x), theirs(x), 1e-6)


def test_layer_norm_without_bias():
    assert LayerNorm(DIMS, bias=False).bias is None
    x = torch.randn(2, 3, 16)
    close(LayerNorm(DIMS)(x), nn.LayerNorm(16)(x), 1e-6)


def test_dynamic_tanh_is_the_papers_line():
    norm, x = DynamicTanh(DIMS, alpha=0.7), torch.randn(2, 3, 16)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    close(norm(x), torch.tanh(0.7 * x) * norm.weight + norm.bias, 1e-6)


def test_no_norm_is_nothing():
    x = torch.randn(2, 3, 16)
    assert NoNorm(DIMS)(x) is x


def test_batch_norm_is_torchs_over_tokens():
    ours, theirs = BatchNorm(DIMS), nn.BatchNorm1d(16)
    for step in range(3):
        x = torch.randn(4, 5, 16) * (step + 1) + step
        close(ours(x), theirs(x.flatten(0, 1)).view_as(x), 1e-5)
    close(ours.mean, theirs.running_mean, 1e-5)
    close(ours.variance, theirs.running_var, 1e-5)
    close(ours.eval()(x), theirs.eval()(x.flatten(0, 1)).view_as(x), 1e-5)


def test_batch_norm_leaves_padding_out():
    documents = torch.tensor([[0, 0, 0, -1, -1], [-1, 0, 0, 1, 1]])
    x = torch.randn(2, 5, 16, dtype=torch.float64).requires_grad_()
    ours, theirs = BatchNorm(DIMS).double(), nn.BatchNorm1d(16).double()
    real = documents >= 0
    y = ours(x, context(documents))
    close(y[real], theirs(x[real]), 1e-6)
    close(ours.mean.double(), theirs.running_mean, 1e-6)
    close(ours.variance.double(), theirs.running_var, 1e-6)
    y[real].square().sum().backward()
    assert torch.equal(x.grad[~real], torch.zeros_like(x.grad[~real]))
    heads = torch.randn(2, 4, 5, 16)
    by_head = BatchNorm(DIMS)(heads, context(documents))
    expected = nn.BatchNorm1d(16)(heads.transpose(1, 2)[real].flatten(0, 1))
    close(by_head.transpose(1, 2)[real].flatten(0, 1), expected, 1e-5)


@pytest.mark.parametrize("documents", [torch.full((1, 4), -1), torch.tensor([[-1, -1, 0, -1]])])
def test_batch_norm_learns_nothing_from_no_tokens(documents):
    norm, x = BatchNorm(DIMS), torch.randn(1, 4, 16)
    assert torch.isfinite(norm(x, context(documents))).all()
    assert torch.equal(norm.mean, torch.zeros(16)) and torch.equal(norm.variance, torch.ones(16))


def test_batch_norm_looks_ahead_in_training_only():
    x = torch.randn(1, 6, 16)
    norm, changed = BatchNorm(DIMS), x.clone()
    changed[:, 5] += 1
    assert not torch.equal(norm(x)[:, 0], norm(changed)[:, 0])
    norm.eval()
    assert torch.equal(norm(x)[:, :5], norm(changed)[:, :5])


def test_batch_norm_counts_a_repetition_once():
    norm, x = BatchNorm(DIMS), torch.randn(2, 6, 16)
    y = norm(x)
    mean = norm.mean.clone()
    with recomputing():
        assert torch.equal(norm(x), y)
    assert torch.equal(norm.mean, mean)


@pytest.mark.parametrize("momentum", [0.0, 1.5])
def test_momentum_is_a_share(momentum):
    with pytest.raises(SizeError, match="momentum"):
        BatchNorm(DIMS, momentum=momentum)
