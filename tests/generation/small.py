"""Small random networks to decode with."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from lit_transformer.blocks import differential_attention, gated_attention, latent_attention, linear_attention
from lit_transformer.blocks.attention import Attention
from lit_transformer.blocks.flex import FlexKernel
from lit_transformer.blocks.kernels import Kernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.position import NoPosition, Position, RoPE
from lit_transformer.dims import Dims, SizeError
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

SIZE = 13


def subclasses(base: type) -> Iterator[type]:
    """All classes below ``base``, however deep."""
    for each in base.__subclasses__():
        yield each
        yield from subclasses(each)


POSITIONS = sorted(
    {each for each in subclasses(Position) if each.__module__.startswith("lit_transformer.blocks.")} | {NoPosition},
    key=lambda each: each.__name__,
)
KERNELS = sorted(
    {
        each
        for each in subclasses(Kernel)
        # Flex attention traces itself anew for each length, which takes seconds; tests of the kernels cover it.
        if each.__module__.startswith("lit_transformer.") and each is not FlexKernel
    },
    key=lambda each: each.__name__,
)

ATTENTIONS = [
    Attention,
    differential_attention.DifferentialAttention,
    gated_attention.GatedAttention,
    latent_attention.LatentAttention,
    linear_attention.LinearAttention,
]


def build(position=RoPE, kernel=None, max_len=64, seed=0, attention=Attention, **vocabulary):
    """A random network with logits spread out enough that its most probable token is clear; skips impossible pairs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            network = DecoderOnly(
                Vocabulary(**{"size": SIZE, "max_len": max_len, **vocabulary}),
                Dims(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2 if attention is Attention else 4),
                layer=partial(Layer, attention=attention),
                position=position,
                kernel=kernel() if kernel else None,
            )
        except SizeError as error:
            pytest.skip(str(error))
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(8)
    return network.eval()


class Letters:
    """A tokenizer of single characters: token i is the i-th letter of the alphabet it is given."""

    def __init__(self, letters: str = "\nabcdefghijkl") -> None:
        self.letters = letters

    def encode(self, text):
        return [self.letters.index(letter) for letter in text]

    def decode(self, ids):
        return "".join(self.letters[i] for i in ids)

    def unknown(self, text):
        return min(set(text) - set(self.letters), default=None)
