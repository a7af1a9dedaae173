"""Sharded networks against the whole one: outputs, gradients, and the weights that they start from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import loss_parallel

from lit_transformer.blocks import (
    FIRE,
    GELU,
    MLP,
    ALiBi,
    Attention,
    BatchNorm,
    BiasedHead,
    CrossAttention,
    DifferentialAttention,
    Embedding,
    Layer,
    LayerNorm,
    Learned,
    LinearHead,
    MixtureOfExperts,
    PostNorm,
    ReZero,
    RMSNorm,
    RoPE,
    Sandwich,
    ScaledEmbedding,
    Sinusoidal,
    SoftCapped,
)
from lit_transformer.blocks.loss import CrossEntropy, TokenLoss
from lit_transformer.blocks.ngram_embedding import NGramEmbedding
from lit_transformer.blocks.streamed_loss import RecomputedCrossEntropy
from lit_transformer.blocks.target_loss import AtTargets
from lit_transformer.dims import Dims, SizeError
from lit_transformer.generation import generate, sampler_of
from lit_transformer.networks import DecoderOnly, EncoderDecoder, EncoderOnly, Network
from lit_transformer.training.callbacks.statistics import normalise_together
from lit_transformer.training.sharding import check, fully_sharded, materialise, tensor_parallel
from lit_transformer.vocabulary import Vocabulary
from tests.training.test_ranks import ranks

WORDS = Vocabulary(22, bos_id=1, eos_id=2, max_len=16)
DIMS = Dims(d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24)
MHA = Dims(d_model=16, n_layers=2, n_heads=2, d_ff=24)
GPT2 = partial(Layer, attention=partial(Attention, bias=True), feed_forward=partial(MLP, activation=GELU, bias=True),
               norm=LayerNorm)  # fmt: skip
NETWORKS: dict[str, Callable[[], Network]] = {
    "llama": lambda: DecoderOnly(WORDS, DIMS, partial(Layer, attention=partial(Attention, qk_norm=RMSNorm)), RoPE),
    "gpt2": lambda: DecoderOnly(WORDS, DIMS, GPT2, Learned, head=LinearHead),
    "original": lambda: EncoderDecoder(
        WORDS, MHA, partial(GPT2, residual=PostNorm), Sinusoidal, embedding=ScaledEmbedding
    ),
}


ODD = Vocabulary(23, bos_id=1, eos_id=2, max_len=16)
ENCODER_DECODER = partial(
    EncoderDecoder, ODD, MHA, position=Learned, head=LinearHead, layer=partial(
        Layer, cross_attention=partial(CrossAttention, qk_norm=RMSNorm), residual=Sandwich
    )
)  # fmt: skip
PARTS: dict[str, Callable[[], Network]] = {
    "fire": partial(DecoderOnly, WORDS, DIMS, position=FIRE),
    "mixture": partial(DecoderOnly, WORDS, DIMS, partial(Layer, feed_forward=MixtureOfExperts)),
    "rezero, capped": partial(DecoderOnly, WORDS, DIMS, partial(Layer, residual=ReZero), head=SoftCapped),
    "differential, biased": partial(
        DecoderOnly, WORDS, DIMS, partial(Layer, attention=DifferentialAttention), head=BiasedHead
    ),
    "batch norm": partial(DecoderOnly, WORDS, DIMS, partial(Layer, norm=BatchNorm)),
    "encoder-decoder": ENCODER_DECODER,
    "n-grams": partial(EncoderOnly, ODD, MHA, embedding=partial(NGramEmbedding, buckets=9, types=2)),
}
LOSSES: dict[str, tuple[Callable[[], Network], TokenLoss]] = {
    "smoothed": (partial(DecoderOnly, WORDS, DIMS), CrossEntropy(0.1)),
    "smoothed, odd": (ENCODER_DECODER, AtTargets(CrossEntropy(0.3))),
    "recomputed": (partial(DecoderOnly, ODD, DIMS), RecomputedCrossEntropy(0.1, chunk=5)),
    "n-grams": (PARTS["n-grams"], CrossEntropy()),
}


def inputs(network: Network) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 22, (4, 8), generator=generator)
    documents = torch.zeros_like(tokens)
    documents[0, 6:] = documents[3, 3:] = -1
    given = {"tokens": tokens, "documents": documents}
    if network.reads_apart:
        given["source"] = torch.randint(3, 22, (4, 6), generator=generator)
    targets = tokens.roll(-1, 1)
    targets[0, 5:] = -100
    targets[documents < 0] = -100
    return given, targets


def gradients(network: Network, rows: slice = slice(None), by: TokenLoss | None = None) -> dict[str, Tensor]:
    given, targets = inputs(network)
    output = network(**{name: value[rows] for name, value in given.items()})
    loss: Tensor = (by or CrossEntropy())(output.hidden, output.head, targets[rows])
    loss.backward()
    found = {"loss": loss.detach()}
    for name, parameter in network.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        found[name] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        found[f"{name}, weight"] = (
            parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        ).detach()
    return found | {f"{name}, weight": buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}


def decoded(network: Network) -> Tensor:
    """Lengths that two devices cannot share: a prompt of three tokens, then one at a time."""
    completions = generate(network, [[3, 4, 5], [6, 7, 8]], sampler=sampler_of(temperature=0), max_new_tokens=5)
    return torch.tensor([each.tokens + [0] * (5 - len(each.tokens)) for each in completions])


def whole(name: str) -> dict[str, Tensor]:
    network = NETWORKS[name]()
    network.initialise(5)
    return gradients(network)


def in_ranks(work: Callable[[], dict[str, Tensor]], folder: Path) -> list[dict[str, Tensor]]:
    def one(rank: int) -> int:
        torch.distributed.init_process_group("gloo")
        found = work()
        torch.save({name: value.detach().clone() for name, value in found.items()}, folder / f"{rank}.pt")
        torch.distributed.destroy_process_group()
        return 0

    assert ranks(one) == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", NETWORKS)
def test_tensor_parallel_is_the_whole_network(name: str, tmp_path: Path) -> None:
    def work() -> dict[str, Tensor]:
        with torch.device("meta"):
            network = NETWORKS[name]()
        tensor_parallel(network, init_device_mesh("cpu", (2,)))
        materialise(network, 5, torch.device("cpu"))
        with loss_parallel():
            return gradients(network) | {"decoded": decoded(network)}

    expected = whole(name)
    network = NETWORKS[name]()
    network.initialise(5)
    expected["decoded"] = decoded(network)
    for found in in_ranks(work, tmp_path):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", NETWORKS)
def test_fully_sharded_is_the_whole_network(name: str, tmp_path: Path) -> None:
    """Each rank has half of the rows; FSDP2 takes the mean of their gradients."""

    def work() -> dict[str, Tensor]:
        with torch.device("meta"):
            network = NETWORKS[name]()
        fully_sharded(network, init_device_mesh("cpu", (2,)))
        materialise(network, 5, torch.device("cpu"))
        rank = torch.distributed.get_rank()
        return gradients(network, slice(2 * rank, 2 * rank + 2))

    expected = whole(name)
    first, second = in_ranks(work, tmp_path)
    torch.testing.assert_close(first["loss"] + second["loss"], expected["loss"])
    for key, value in expected.items():
        if key != "loss":
            factor = 1 if key.endswith("weight") and ", " in key else 2
            torch.testing.assert_close(first[key] * factor, value, rtol=1e-4, atol=1e-5)
            assert torch.equal(first[key], second[key])


def exactly(works: dict[str, Callable[[], dict[str, Tensor]]]) -> dict[str, Tensor]:
    """What several works find, in double precision: gradients that are zero are next to it."""
    torch.set_default_dtype(torch.float64)
    try:
        return {f"{part}: {name}": value for part, work in works.items() for name, value in work().items()}
    finally:
        torch.set_default_dtype(torch.float32)


def test_losses_and_tables_of_parts_of_the_vocabulary(tmp_path: Path) -> None:
    """Values and gradients of each loss where each device has a part of the logits, and of every table."""

    def alone(make: Callable[[], Network], loss: TokenLoss) -> dict[str, Tensor]:
        network = make()
        network.initialise(5)
        return gradients(network, by=loss)

    def shared(make: Callable[[], Network], loss: TokenLoss) -> dict[str, Tensor]:
        with torch.device("meta"):
            network = make()
        check(network, 2)
        tensor_parallel(network, init_device_mesh("cpu", (2,)))
        materialise(network, 5, torch.device("cpu"))
        with loss_parallel():
            return gradients(network, by=loss)

    expected = exactly({name: partial(alone, *each) for name, each in LOSSES.items()})
    for found in in_ranks(lambda: exactly({name: partial(shared, *each) for name, each in LOSSES.items()}), tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_dropout_differs_where_parts_do(tmp_path: Path) -> None:
    def work() -> dict[str, Tensor]:
        layer = partial(Layer, dropout=0.5)
        with torch.device("meta"):
            network = DecoderOnly(WORDS, DIMS, layer, embedding=partial(Embedding, dropout=0.5))
        tensor_parallel(network, init_device_mesh("cpu", (2,)))
        materialise(network, 5, torch.device("cpu"))
        inside: list[Tensor] = []
        for each in (module for module in network.modules() if isinstance(module, Layer)):
            each.residual.register_forward_pre_hook(lambda part, _: inside.append(part.drop(torch.ones(64))))
        torch.manual_seed(3)
        found = {}
        for step in range(2):
            network(inputs(network)[0]["tokens"])
            found[f"outside {step}"] = network.embedding.drop(torch.ones(64))
        return found | {f"inside {number}": mask for number, mask in enumerate(inside)}

    first, second = in_ranks(work, tmp_path)
    assert len(first) == 6
    for name, mask in first.items():
        assert torch.equal(mask, second[name]) == name.startswith("outside")
    assert len({tuple(mask.tolist()) for found in (first, second) for mask in found.values()}) == 10


def test_parts_of_every_kind_fully_sharded(tmp_path: Path) -> None:
    """Parameters of one number, tables and heads beside the layers, and statistics of all tokens."""

    def alone(make: Callable[[], Network]) -> dict[str, Tensor]:
        network = make()
        network.initialise(5)
        return gradients(network)

    def shared(make: Callable[[], Network]) -> dict[str, Tensor]:
        with torch.device("meta"):
            network = make()
        fully_sharded(network, init_device_mesh("cpu", (2,)))
        materialise(network, 5, torch.device("cpu"))
        normalise_together(network, 2)
        rank = torch.distributed.get_rank()
        found = gradients(network, slice(2 * rank, 2 * rank + 2))
        torch.distributed.all_reduce(found["loss"])
        found["loss"] /= 2
        return {name: value * (1 if name.endswith(", weight") else 2) for name, value in found.items()}

    expected = exactly({name: partial(alone, make) for name, make in PARTS.items()})
    for found in in_ranks(lambda: exactly({name: partial(shared, make) for name, make in PARTS.items()}), tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("network", "devices", "key"), [
    (lambda: DecoderOnly(WORDS, DIMS), 4, "dims.n_kv_heads"),
    (lambda: DecoderOnly(WORDS, Dims(18, 1, 3, d_ff=8)), 2, "dims.n_heads"),
    (lambda: DecoderOnly(WORDS, DIMS, position=ALiBi), 2, "no plan for ALiBi"),
    (lambda: DecoderOnly(WORDS, DIMS, partial(Layer, feed_forward=MixtureOfExperts)), 2, "MixtureOfExperts"),
])  # fmt: skip
def test_what_has_no_plan_is_refused(network: Callable[[], Network], devices: int, key: str) -> None:
    with pytest.raises(SizeError, match=key):
        check(network(), devices)
