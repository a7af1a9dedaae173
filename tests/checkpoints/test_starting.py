"""Starting from another run: every weight is loaded, new or dropped, and said so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lit_transformer.blocks.embedding import LinearHead, MaskedHead
from lit_transformer.blocks.position import Learned
from lit_transformer.checkpoints.starting import start_from
from lit_transformer.data.tokenizers import Bytes, Character
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly, EncoderDecoder, EncoderOnly, PrefixLM
from lit_transformer.networks.base import Network
from lit_transformer.vocabulary import Vocabulary

PATH = Path("run/best.ckpt")
DIMS = Dims(d_model=16, n_layers=2, n_heads=2, max_len=8)


def network(kind: type[Network], seed: int, size: int = 20, dims: Dims = DIMS, **parts: Any) -> Network:
    torch.manual_seed(seed)
    return kind(Vocabulary(size, bos_id=0), dims, **parts)  # type: ignore[call-arg]


def checkpoint(source: Network, **more: Any) -> dict[str, Any]:
    state = {f"network.{name}": value for name, value in source.state_dict().items()}
    return {"state_dict": state, "vocabulary": {"size": source.vocabulary.size}, **more}


def same(a: Network, b: Network, name: str, other: str | None = None) -> bool:
    return torch.equal(a.state_dict()[name], b.state_dict()[other or name])


@pytest.mark.parametrize("kind", [DecoderOnly, PrefixLM, EncoderOnly, EncoderDecoder])
def test_the_same_network_takes_over_everything(kind: type[Network]) -> None:
    source, target = network(kind, 1), network(kind, 2)
    start = start_from(target, PATH, checkpoint(source))
    assert all(same(source, target, name) for name in source.state_dict())
    assert not start.new and not start.dropped and not start.partly
    assert "weights loaded, the run starts at step 0" in start.lines()[0]


def test_a_masked_language_model_becomes_a_classifier_or_a_decoder() -> None:
    source, target = network(EncoderOnly, 1, head=MaskedHead), network(EncoderOnly, 2)
    start = start_from(target, PATH, checkpoint(source))
    assert {name.split(".")[0] for name in start.dropped} == {"head"} and not start.new
    assert same(source, target, "stack.layers.1.residual.norms.1.weight")
    start = start_from(network(DecoderOnly, 2, head=LinearHead), PATH, checkpoint(source))
    assert start.loaded["head.weight"] == "head.weight" and not start.new


def test_a_stack_becomes_both_halves_and_back() -> None:
    source, target = network(DecoderOnly, 1), network(EncoderDecoder, 2)
    start = start_from(target, PATH, checkpoint(source))
    for half in ("encoder", "decoder"):
        for name in (name for name in source.state_dict() if name.startswith("stack.")):
            there = name.replace("stack", half)
            if half == "decoder":  # cross-attention stands between the two sublayers
                there = there.replace("norms.1", "norms.2")
            assert same(source, target, name, there)
    assert start.new and all("cross_attention" in name or "norms.1" in name for name in start.new)
    text = "\n".join(start.lines())
    assert (
        "encoder.layers.0-1 (from stack.layers.0-1)" in text
        and "decoder.layers.0-1.cross_attention" in text
        and "new, drawn from the seed" in text
        and "dropped" not in text
    )
    for kind, half in ((EncoderOnly, "encoder"), (DecoderOnly, "decoder")):
        back = network(kind, 3)
        start = start_from(back, PATH, checkpoint(target))
        assert not start.new and start.loaded["stack.norm.weight"] == f"{half}.norm.weight"
        behind = 1 if half == "encoder" else 2
        assert (
            start.loaded["stack.layers.0.residual.norms.1.weight"] == f"{half}.layers.0.residual.norms.{behind}.weight"
        )
        assert all(
            name.startswith("decoder" if half == "encoder" else "encoder") or "cross" in name or "norms.1" in name
            for name in start.dropped
        )


def test_longer_vocabularies_and_contexts_keep_what_they_had() -> None:
    source = network(DecoderOnly, 1, position=Learned)
    target = network(DecoderOnly, 2, size=25, dims=Dims(16, 2, 2, max_len=12), position=Learned)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    start = start_from(target, PATH, checkpoint(source))
    state, old = target.state_dict(), source.state_dict()
    assert torch.equal(state["embedding.weight"][:20], old["embedding.weight"])
    assert torch.equal(state["embedding.weight"][20:], before["embedding.weight"][20:])
    assert start.partly["embedding.weight"] == "20 of 25 tokens loaded, the others are new"
    position = next(name for name in start.partly if "position" in name)
    assert torch.equal(state[position][:8], old[position]) and "8 of 12 positions" in start.partly[position]


def test_other_sizes_tokenizers_and_strangers_are_refused() -> None:
    source = network(DecoderOnly, 1)
    with pytest.raises(UserError, match=r"--init_from run/best.ckpt: .* is 20 x 16, here it is 20 x 32; use the sizes"):
        start_from(network(DecoderOnly, 2, dims=Dims(32, 2, 2, max_len=8)), PATH, checkpoint(source))
    with pytest.raises(UserError, match="none of its weights fits"):
        start_from(network(DecoderOnly, 2), PATH, {"state_dict": {"network.other": torch.ones(2)}})
    one, other = (Character(["<eos>"]).build(iter([text])) for text in ("abc", "abd"))
    content = checkpoint(source, tokenizer_sha256=one.fingerprint, tokenizer=one.to_json())
    with pytest.raises(UserError, match="another tokenizer: token 3 was 'c', here 'd'; use the tokenizer.json"):
        start_from(network(DecoderOnly, 2), PATH, content, other)
    start_from(network(DecoderOnly, 2), PATH, content, one.with_special_tokens(["<x>"]))
    with pytest.raises(UserError, match="another tokenizer"):
        start_from(network(DecoderOnly, 2), PATH, {**content, "tokenizer": None}, Bytes().build(iter(())))
