"""Parameter groups, and Muon against its definition."""

import pytest
import torch

from lit_transformer.blocks import Learned
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.training.muon import Muon, orthogonal
from lit_transformer.training.optimizers import parameter_groups
from lit_transformer.vocabulary import Vocabulary


def network() -> DecoderOnly:
    return DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 2, 2), position=Learned)


def test_every_parameter_is_in_one_group() -> None:
    net = network()
    groups = {group["name"]: group for group in parameter_groups(net)}
    ids = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())
    assert groups["vectors"]["weight_decay"] == 0.0
    assert all(p.ndim < 2 for p in groups["vectors"]["params"])
    assert {id(net.embedding.weight), id(net.stack.position.table)} == {id(p) for p in groups["embeddings"]["params"]}


def test_frozen_parameters_are_left_out() -> None:
    net = network()
    net.embedding.weight.requires_grad_(False)
    assert all(p is not net.embedding.weight for group in parameter_groups(net) for p in group["params"])


@pytest.mark.parametrize("shape", [(16, 16), (48, 16), (16, 48)])
def test_orthogonal_pushes_singular_values_to_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonal(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(result.flatten(), (left @ right).flatten(), 0) > 0.97


def test_muon_gives_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = network(), network()
    theirs.load_state_dict(ours.state_dict())
    muon = Muon(parameter_groups(ours), lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95))
    groups = [group for group in parameter_groups(theirs) if group["name"] != "matrices"]
    adamw = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95))
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours.embedding.weight, theirs.embedding.weight)
    torch.testing.assert_close(ours.stack.norm.weight, theirs.stack.norm.weight)


def test_muon_resumes_exactly() -> None:
    torch.manual_seed(0)

    def steps(net: DecoderOnly, optimizer: Muon, seeds: range) -> None:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for parameter in net.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    whole = network()
    halves = network()
    halves.load_state_dict(whole.state_dict())
    steps(whole, Muon(parameter_groups(whole)), range(6))
    first = Muon(parameter_groups(halves))
    steps(halves, first, range(3))
    second = Muon(parameter_groups(halves))
    second.load_state_dict(first.state_dict())
    steps(halves, second, range(3, 6))
    for a, b in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)
