"""Recompute changes neither values nor gradients nor names, and keeps less."""

import copy
from functools import partial

import pytest
import torch

from lit_transformer.blocks import (
    Attention,
    BatchNorm,
    BiasBalancing,
    Capacity,
    DifferentialAttention,
    EagerKernel,
    LatentAttention,
    Layer,
    LinearAttention,
    MixtureOfExperts,
    Parallel,
    SlidingWindow,
)
from lit_transformer.blocks.masks import Causal
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import DecoderOnly
from lit_transformer.training.recompute import Recompute, SelectiveRecompute, keep_layers, recompute_layers
from lit_transformer.vocabulary import Vocabulary

DIMS = Dims(d_model=16, n_layers=3, n_heads=4, max_len=16)
TOKENS = torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(0))
DOCUMENTS = torch.tensor([[0] * 5 + [1] * 7, [0] * 9 + [-1] * 3])

PARTS = {
    "plain": {},
    "dropout": {"attention": partial(Attention, dropout=0.3), "dropout": 0.3},
    "latent": {"attention": LatentAttention},
    "differential": {"attention": DifferentialAttention},
    "linear": {"attention": LinearAttention},
    "batch norm": {"norm": BatchNorm},
    "parallel": {"residual": Parallel},
    "mixture": {"feed_forward": partial(MixtureOfExperts, balance=[BiasBalancing])},
    "capacity": {"feed_forward": partial(MixtureOfExperts, dispatch=Capacity())},
}
KINDS = [Recompute, SelectiveRecompute]


def network(**parts):
    torch.manual_seed(0)
    return DecoderOnly(Vocabulary(11), DIMS, partial(Layer, **parts)).train()


def step(built, autocast=False):
    torch.manual_seed(5)
    built.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = built(TOKENS, documents=DOCUMENTS)
        loss = output.logits.float().logsumexp(-1)[DOCUMENTS >= 0].sum() + sum(output.losses.values())
    loss.backward()
    return {
        "loss": loss.detach(),
        **{f"gradient of {name}": p.grad.clone() for name, p in built.named_parameters() if p.grad is not None},
        **{name: buffer.clone() for name, buffer in built.named_buffers()},
        "generator": torch.get_rng_state(),
    }


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [1, 2])
def test_values_gradients_and_running_state_are_the_same(parts, kind, every):
    plain = network(**parts)
    less = copy.deepcopy(plain)
    assert len(recompute_layers(less, every, kind.contexts)) == (3 if every == 1 else 2)
    assert list(less.state_dict()) == list(plain.state_dict())
    for _ in range(2):
        expected, found = step(plain), step(less)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_also_under_autocast_and_with_another_mask_and_kernel(kind):
    layers = [partial(Layer, mask=Causal() & SlidingWindow(3)), Layer]
    torch.manual_seed(0)
    plain = DecoderOnly(Vocabulary(11), DIMS, layers, kernel=EagerKernel()).train()
    less = copy.deepcopy(plain)
    recompute_layers(less, 1, kind.contexts)
    expected, found = step(plain, True), step(less, True)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_runs_again_once(kind):
    built, calls = network(), []
    built.stack.layers[1].feed_forward.register_forward_pre_hook(lambda module, given: calls.append(1))
    recompute_layers(built, 1, kind.contexts)
    step(built)
    assert len(calls) == 2
    with torch.no_grad():
        built(TOKENS)
    assert len(calls) == 3


def test_decoding_is_not_recomputed():
    built = network().eval()
    recompute_layers(built)
    cache = built.new_cache(2, 12)
    assert torch.equal(built(TOKENS, cache=cache).logits, built(TOKENS).logits)


def test_what_is_kept_shrinks():
    sizes = {}
    for name, change in {
        "none": lambda n: None,
        "every second": lambda n: recompute_layers(n, 2),
        "selective": lambda n: recompute_layers(n, 1, SelectiveRecompute.contexts),
        "every": recompute_layers,
    }.items():
        torch.manual_seed(0)
        built = DecoderOnly(Vocabulary(11), Dims(64, 6, 4, max_len=64)).train()
        change(built)
        sizes[name] = kept_bytes(built, torch.randint(11, (4, 64)))
    assert sizes["every"] < 0.4 * sizes["none"], sizes
    assert sizes["selective"] < 0.75 * sizes["none"], sizes
    assert sizes["every"] < sizes["every second"] < 0.75 * sizes["none"], sizes


def kept_bytes(built, tokens):
    """The most bytes of tensors that lived at once in a forward and backward pass, gradients not counted."""
    import weakref

    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Count(TorchDispatchMode):
        live = peak = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if torch.is_tensor(x)}
            result = func(*args, **(kwargs or {}))
            for x in tree_leaves(result):
                if torch.is_tensor(x) and x.untyped_storage().data_ptr() not in given:
                    size = x.untyped_storage().nbytes()
                    self.live += size
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(x.untyped_storage(), self.forget, size)
            return result

        def forget(self, size):
            self.live -= size

    with Count() as count:
        built(tokens).logits.logsumexp(-1).sum().backward()
    return count.peak - sum(p.numel() * 4 for p in built.parameters())


def test_a_copy_runs_its_own_layers():
    built = network()
    recompute_layers(built)
    other = copy.deepcopy(built)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not other(TOKENS).logits.any() and built(TOKENS).logits.any()


def test_keep_layers_undoes_it():
    built = network()
    recompute_layers(built)
    keep_layers(built)
    assert all("forward" not in layer.__dict__ for layer in built.stack.layers)


def test_every_must_be_a_number_of_layers():
    with pytest.raises(SizeError, match="every: is 0 in Recompute"):
        Recompute(every=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_the_callback_is_the_run_without(kind):
    from lightning.pytorch import LightningModule, Trainer

    class Run(LightningModule):
        def __init__(self):
            super().__init__()
            self.losses = []

        def configure_model(self):
            if not hasattr(self, "network"):
                self.network = network(dropout=0.2)

        def training_step(self, batch, batch_idx):
            recomputed = ["forward" in layer.__dict__ for layer in self.network.stack.layers]
            loss = self.network(batch).logits.logsumexp(-1).mean()
            self.losses.append((recomputed, float(loss.detach())))
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    results = []
    for callbacks in ([], [kind(every=2)]):
        torch.manual_seed(0)
        run = Run()
        trainer = Trainer(
            max_steps=3, callbacks=callbacks, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(run, torch.utils.data.DataLoader(TOKENS.repeat(3, 1), batch_size=2))
        results.append(run)
    plain, less = results
    assert [loss for _, loss in plain.losses] == [loss for _, loss in less.losses]
    assert less.losses[0][0] == [True, False, True] and not any(plain.losses[0][0])
    assert all("forward" not in layer.__dict__ for layer in less.network.stack.layers)
