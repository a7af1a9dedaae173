"""Encoder-only: BERT and its kin."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from lit_transformer.blocks.embedding import Embedding, Head, TiedHead
from lit_transformer.blocks.kernels import Kernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.masks import Full, Mask
from lit_transformer.blocks.position import Position, RoPE
from lit_transformer.blocks.stack import LayerFactory, Stack
from lit_transformer.dims import Dims
from lit_transformer.networks.base import Network, Output
from lit_transformer.networks.initialisation import DepthScaled, Initialisation, initialise
from lit_transformer.vocabulary import Vocabulary


class EncoderOnly(Network):
    """A stack whose tokens all see each other (BERT: Devlin et al., 2019, arXiv:1810.04805).

    For masked language modelling (its head scores the hidden tokens) and classification (which pools its states).

    Args:
        vocabulary: Sizes and special ids of the data.
        dims: Sizes of the stack.
        layer: Makes a layer; a list is a pattern that repeats.
        position: Makes the position encoding.
        mask: Who may look at whom; left out: all at all.
        kernel: How attention is computed; left out: the fastest for the case, as measured.
        embedding: Makes the embedding.
        head: Makes the head of masked language modelling: MaskedHead is BERT's.
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
        self.stack = Stack(dims, layer, position, mask or Full(), kernel)
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
        types: Int[Tensor, "B T"] | None = None,
    ) -> Output:
        """Hidden states of every token, and on demand logits of what stands there.

        Args:
            tokens: Ids.
            documents: Document numbers of packed rows, -1 for padding; left out: one document a row.
            positions: Positions; left out: the index in the row.
            types: Which of two sentences a token belongs to; left out: all to the first.
        """
        x = self.embedding(tokens, types)
        x, _, auxiliary = self.stack(x, positions, documents, None, None, self.embedding.drop)
        return Output(x, self.head, None, auxiliary)
