"""Adapters: nothing changes at first, only they learn, and folded in they are the same function."""

import copy
from functools import partial

import pytest
import torch

from lit_transformer.blocks import Attention, LatentAttention, Layer
from lit_transformer.checkpoints.adapters import without_adapters
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly
from lit_transformer.training.adapters import adapt, merge
from lit_transformer.vocabulary import Vocabulary

DIMS = Dims(d_model=16, n_layers=2, n_heads=2, d_ff=24)
TOKENS = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(0))


BIASED = partial(Layer, attention=partial(Attention, bias=True))


def network(layer=BIASED):
    torch.manual_seed(0)
    return DecoderOnly(Vocabulary(11), DIMS, layer).double()


@pytest.mark.parametrize("magnitude", [False, True], ids=["lora", "dora"])
def test_adapters_start_as_nothing_learn_alone_and_merge(magnitude):
    plain = network()
    built = copy.deepcopy(plain)
    names = adapt(built, 2, 4.0, ["query", "value", "down"], magnitude=magnitude)
    assert len(names) == 6
    before = built(TOKENS).logits
    torch.testing.assert_close(before, plain(TOKENS).logits, rtol=1e-10, atol=1e-10)
    trained = [name for name, p in built.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained)

    optimizer = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=2.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            built(TOKENS).logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()
        ).backward()
        optimizer.step()
    after = built(TOKENS).logits
    assert (after - before).abs().max() > 1e-2
    assert torch.equal(built.stack.layers[0].attention.query.weight, plain.stack.layers[0].attention.query.weight)

    plain.load_state_dict(without_adapters(built.state_dict()))
    torch.testing.assert_close(plain(TOKENS).logits, after, rtol=1e-9, atol=1e-9)
    merge(built)
    assert built.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(built(TOKENS).logits, after, rtol=1e-9, atol=1e-9)


def test_what_cannot_be_adapted():
    with pytest.raises(UserError, match="no product is called 'queries'"):
        adapt(network(), 2, 4.0, ["queries"])
    latent = network(partial(Layer, attention=LatentAttention))
    with pytest.raises(UserError, match="'key'"):
        adapt(latent, 2, 4.0, ["key"])
    assert adapt(latent, 2, 4.0, ["latent", "output"])
