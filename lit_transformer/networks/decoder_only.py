"""Decoder-only: GPT, Llama and their kin."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lit_transformer.blocks.cache import Cache
from lit_transformer.blocks.embedding import Embedding, Head, TiedHead
from lit_transformer.blocks.kernels import Kernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.masks import Mask, require_causal
from lit_transformer.blocks.position import Position, RoPE
from lit_transformer.blocks.stack import LayerFactory, Stack
from lit_transformer.dims import Dims
from lit_transformer.networks.base import Network, Output
from lit_transformer.networks.initialisation import DepthScaled, Initialisation, initialise
from lit_transformer.vocabulary import Vocabulary


class DecoderOnly(Network):
    """A stack that predicts the next token (GPT: Radford et al., 2019; Llama: Touvron et al., 2023).

    Args:
        vocabulary: Sizes and special ids of the data.
        dims: Sizes of the stack.
        layer: Makes a layer; a list is a pattern that repeats.
        position: Makes the position encoding.
        mask: Who may look at whom; left out: causal.
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
        dims = dims.with_max_len(vocabulary.max_len)
        super().__init__(vocabulary, dims)
        self.embedding = embedding(vocabulary.size, dims)
        self.stack = Stack(dims, layer, position, mask, kernel)
        for mask_in_use in self.stack.masks:
            require_causal(mask_in_use, dims.max_len)
        self.head = head(dims, self.embedding)
        self.scheme = initialisation or DepthScaled()
        if not self.embedding.weight.is_meta:
            self.initialise(torch.initial_seed())

    def initialise(self, seed: int) -> None:
        """Draws all weights from the seed."""
        initialise(self, self.scheme, seed, self.dims.n_layers)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
        prefix: Bool[Tensor, "B T"] | None = None,
    ) -> Output:
        """Hidden states (and on demand logits) of the next token at every place.

        Args:
            tokens: Ids.
            documents: Document numbers of packed rows, -1 for padding; left out: one document a row.
            positions: Positions; left out: the index in the row.
            cache: What earlier calls left; the new tokens come behind.
            prefix: True for the part that is given; a causal mask takes no notice, ``PrefixCausal`` shows it to all.
        """
        x = self.embedding(tokens)
        x, cache, auxiliary = self.stack(x, positions, documents, prefix, cache, self.embedding.drop)
        return Output(x, self.head, cache, auxiliary)

    def new_cache(
        self, batch: int, max_len: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Cache:
        """An empty decoding state for ``batch`` rows of up to ``max_len`` tokens."""
        return self.stack.new_cache(batch, max_len, dtype, device)
