"""Prefix-LM: one stack that reads its prompt in both directions and writes in one."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from lit_transformer.blocks.cache import Cache
from lit_transformer.blocks.embedding import Embedding, Head, TiedHead
from lit_transformer.blocks.kernels import Kernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.masks import Mask, PrefixCausal
from lit_transformer.blocks.position import Position, RoPE
from lit_transformer.blocks.stack import LayerFactory
from lit_transformer.dims import Dims
from lit_transformer.networks.base import Output
from lit_transformer.networks.decoder_only import DecoderOnly
from lit_transformer.networks.initialisation import Initialisation
from lit_transformer.vocabulary import Vocabulary


class PrefixLM(DecoderOnly):
    """A decoder whose tokens all see the given beginning of their row (Raffel et al., 2020, arXiv:1910.10683).

    Which tokens are the prefix comes with the batch; in decoding it is the prompt.

    Args:
        vocabulary: Sizes and special ids of the data.
        dims: Sizes of the stack.
        layer: Makes a layer; a list is a pattern that repeats.
        position: Makes the position encoding.
        mask: Who may look at whom; left out: all see the prefix, and what comes before them.
        kernel: How attention is computed; left out: the fastest for the case, as measured.
        embedding: Makes the embedding.
        head: Makes the head: TiedHead shares the embedding's weight, LinearHead has its own.
        initialisation: How weights start.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        dims: Dims = Dims(),  # noqa: B008 frozen
        layer: list[LayerFactory] | LayerFactory = Layer,
        position: Callable[[Dims], Position] = RoPE,
        mask: Mask | None = None,
        kernel: Kernel | None = None,
        embedding: Callable[[int, Dims], Embedding] = Embedding,
        head: Callable[[Dims, Embedding], Head] = TiedHead,
        initialisation: Initialisation | None = None,
    ) -> None:
        mask = mask or PrefixCausal()
        super().__init__(vocabulary, dims, layer, position, mask, kernel, embedding, head, initialisation)

    def prefill(
        self,
        tokens: Int[Tensor, "B N"],
        documents: Int[Tensor, "B N"] | None = None,
        positions: Int[Tensor, "B N"] | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """See the base class: the whole prompt is prefix."""
        prefix = torch.ones_like(tokens, dtype=torch.bool)
        return self(tokens, documents, positions, cache, prefix)  # type: ignore[no-any-return]
