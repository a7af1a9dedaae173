"""Rollout, flow, importance, similarity and the logit lens, on networks whose answer is known."""

from functools import partial

import pytest
import torch

from lit_transformer.analysis.importance import by_ablation, by_gradient, value_weighted
from lit_transformer.analysis.lens import logit_lens
from lit_transformer.analysis.record import record_attention
from lit_transformer.analysis.rollout import FLOW_LIMIT, flow, rollout, with_residual
from lit_transformer.analysis.similarity import clustered, head_distances
from lit_transformer.blocks import Attention, Layer, LayerNorm, PostNorm
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly, EncoderDecoder, EncoderOnly
from lit_transformer.vocabulary import Vocabulary

WORDS = Vocabulary(13, bos_id=1, max_len=200)
DIMS = Dims(d_model=16, n_layers=3, n_heads=4, d_ff=32)


def drawn(network):
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    return network.eval()


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 13, shape, generator=torch.Generator().manual_seed(seed))


def test_rollout_rows_sum_to_one_and_follow_the_definition() -> None:
    network = drawn(DecoderOnly(WORDS, DIMS))
    with record_attention(network) as record:
        network(ids(2, 7), documents=torch.tensor([[0] * 7, [-1] * 2 + [0] * 5]))
    found = rollout(record.layers)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 2, 7))
    matrices = [with_residual(layer) for layer in record.layers]
    torch.testing.assert_close(found[-1], matrices[2] @ matrices[1] @ matrices[0])
    assert (found[-1].triu(1) == 0).all()
    assert (found[:, 1, 2:, :2] == 0).all()  # padding is nowhere in what is read


def test_flow_is_the_narrowest_place() -> None:
    network = drawn(DecoderOnly(WORDS, Dims(16, 1, 4)))
    with record_attention(network) as record:
        network(ids(1, 5))
    torch.testing.assert_close(flow(record.layers, 3), with_residual(record.layers[0])[0, 3])
    deep = drawn(DecoderOnly(WORDS, DIMS))
    with record_attention(deep) as record:
        deep(ids(1, 5))
    found = flow(record.layers)
    last = with_residual(record.layers[-1])[0, -1]
    assert (found <= 1 + 1e-6).all() and (found > 0).all()
    assert found[-1] <= last[-1] + 1e-6  # from the last token only by way of itself
    with record_attention(deep) as record:
        deep(ids(1, FLOW_LIMIT + 1))
    with pytest.raises(UserError, match="use rollout"):
        flow(record.layers)
    with pytest.raises(UserError, match="no self-attention"):
        rollout([])


def test_a_head_without_output_does_not_matter() -> None:
    network = drawn(DecoderOnly(WORDS, DIMS))
    output = network.stack.layers[1].attention.output.weight
    output.data.unflatten(1, (4, -1))[:, 2] = 0
    tokens = ids(4, 9)

    def loss() -> torch.Tensor:
        logits = network(tokens[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    ablation, gradient = by_ablation(network, loss), by_gradient(network, loss)
    assert len(ablation) == len(gradient) == 12
    silent = ("stack.layers.1.attention", 2)
    assert ablation[silent] == pytest.approx(0, abs=1e-6) and gradient[silent] == pytest.approx(0, abs=1e-6)
    others = [abs(value) for key, value in ablation.items() if key != silent]
    assert min(others) > 1e-5 and min(value for key, value in gradient.items() if key != silent) > 1e-6
    assert not output.requires_grad or output.grad is None
    with record_attention(network) as record:
        network(tokens)
    weighted = value_weighted(record.layers[1])
    assert (weighted[:, 2] == 0).all() and (weighted[:, 0].sum(-1) > 0).all()


def test_ablation_is_the_network_without_the_head() -> None:
    network = drawn(DecoderOnly(WORDS, Dims(16, 1, 4)))
    tokens = ids(2, 6)

    def loss() -> torch.Tensor:
        return network(tokens).hidden.square().mean()

    found = by_ablation(network, loss)["stack.layers.0.attention", 1]
    before = loss()
    network.stack.layers[0].attention.output.weight.data.unflatten(1, (4, -1))[:, 1] = 0
    assert found == pytest.approx(float(loss() - before), abs=1e-6)


def test_equal_heads_are_neighbours() -> None:
    network = drawn(DecoderOnly(WORDS, DIMS))
    for name in ("query", "key"):
        weight = getattr(network.stack.layers[0].attention, name).weight.data.unflatten(0, (4, -1))
        weight[3] = weight[0]
    with record_attention(network) as record:
        network(ids(2, 9))
    distances = head_distances(record.layers, size=4)
    assert distances.shape == (12, 12) and distances[0, 3] < 1e-9
    torch.testing.assert_close(distances, distances.T)
    assert ((distances >= 0) & (distances <= 1)).all() and distances[0, 1] > 1e-3
    order = clustered(distances)
    assert sorted(order) == list(range(12)) and abs(order.index(0) - order.index(3)) == 1
    translator = drawn(EncoderDecoder(WORDS, DIMS))
    with record_attention(translator) as record:
        translator(ids(1, 5), source=ids(1, 4))
    with pytest.raises(UserError, match="differ in queries or keys"):
        head_distances(record.layers)


@pytest.mark.parametrize("architecture", [DecoderOnly, EncoderOnly, EncoderDecoder])
@pytest.mark.parametrize("order", [None, PostNorm])
def test_the_lens_behind_the_last_layer_is_the_network(architecture, order) -> None:
    layer = Layer if order is None else partial(Layer, residual=order, norm=LayerNorm, attention=Attention)
    network = drawn(architecture(WORDS, DIMS, layer))
    inputs = {"tokens": ids(2, 6)} | ({"source": ids(2, 5)} if architecture is EncoderDecoder else {})
    found = logit_lens(network, **inputs)
    assert found.shape == (3, 2, 6, 13)
    torch.testing.assert_close(found[-1], network(**inputs).logits.log_softmax(-1))
    assert not torch.allclose(found[0], found[-1], atol=1e-2)
