"""Encoder-decoder: the original Transformer, T5, BART."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.cache import Cache, Memory
from lit_transformer.blocks.embedding import Embedding, Head, TiedHead
from lit_transformer.blocks.kernels import Kernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.masks import Full, Mask, Sites, require_causal
from lit_transformer.blocks.position import Position, RoPE
from lit_transformer.blocks.stack import LayerFactory, Stack
from lit_transformer.dims import DecoderDims, Dims
from lit_transformer.errors import UserError
from lit_transformer.networks.base import Network, Output, weights_in_products
from lit_transformer.networks.initialisation import DepthScaled, Initialisation, initialise
from lit_transformer.vocabulary import Vocabulary


class EncoderParts:
    """What the encoder of an encoder-decoder has otherwise than its decoder; what is left out is alike.

    Args:
        n_layers: Number of layers.
        layer: Makes a layer; a list is a pattern that repeats.
        position: Makes the position encoding.
        mask: Who may look at whom; left out: all at all.
    """

    def __init__(
        self,
        n_layers: int | None = None,
        layer: list[LayerFactory] | LayerFactory | None = None,
        position: Callable[[Dims], Position] | None = None,
        mask: Mask | None = None,
    ) -> None:
        self.n_layers = n_layers
        self.layer = layer
        self.position = position
        self.mask = mask


class EncoderDecoder(Network):
    """A stack that reads a source, and one that writes a target and looks at it (Vaswani et al., 2017).

    Source and target share the embedding, unless the vocabulary says that the source has tokens of its own.

    Args:
        vocabulary: Sizes and special ids of the data.
        dims: Sizes of both stacks.
        layer: Makes a layer; a list is a pattern that repeats. The decoder's get cross-attention.
        position: Makes the position encoding of each stack.
        mask: Who may look at whom among the target's tokens; left out: causal.
        kernel: How attention is computed; left out: the fastest for the case, as measured.
        embedding: Makes the embedding.
        head: Makes the head: TiedHead shares the embedding's weight, LinearHead has its own.
        initialisation: How weights start.
        encoder: What the encoder has otherwise.
    """

    reads_apart = True

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
        encoder: EncoderParts | None = None,
    ) -> None:
        dims = dims.with_max_len(vocabulary.max_len)
        super().__init__(vocabulary, dims)
        own = encoder or EncoderParts()
        self.source_dims = dims if own.n_layers is None else replace(dims, n_layers=own.n_layers)
        self.embedding = embedding(vocabulary.size, dims)
        self.own_source_embedding = None
        if vocabulary.source_size is not None:
            self.own_source_embedding = embedding(vocabulary.source_size, dims)
        self.encoder = Stack(self.source_dims, own.layer or layer, own.position or position, own.mask or Full(), kernel)
        self.decoder = Stack(DecoderDims.of(dims), layer, position, mask, kernel)
        for mask_in_use in self.decoder.masks:
            require_causal(mask_in_use, dims.max_len)
        self.head = head(dims, self.embedding)
        self.scheme = initialisation or DepthScaled()
        if not self.embedding.weight.is_meta:
            self.initialise(torch.initial_seed())

    def initialise(self, seed: int) -> None:
        """Draws all weights from the seed."""
        initialise(self, self.scheme, seed, self.dims.n_layers)

    @property
    def source_embedding(self) -> Embedding:
        """The source's embedding: the target's, unless the source has a vocabulary of its own."""
        return self.embedding if self.own_source_embedding is None else self.own_source_embedding

    def encode(
        self,
        source: Int[Tensor, "B S"],
        documents: Int[Tensor, "B S"] | None = None,
        positions: Int[Tensor, "B S"] | None = None,
    ) -> tuple[Memory, Auxiliary]:
        """The encoder's states of a source, and what its layers report.

        Args:
            source: Ids.
            documents: Document numbers of packed rows, -1 for padding; left out: one document a row.
            positions: Positions; left out: the index in the row.
        """
        x, _, auxiliary = self.encoder(
            self.source_embedding(source), positions, documents, None, None, self.source_embedding.drop
        )
        index = torch.arange(source.shape[1], device=source.device).unsqueeze(0)
        return Memory(x, Sites(index, documents)), auxiliary

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
        source: Int[Tensor, "B S"] | None = None,
        source_documents: Int[Tensor, "B S"] | None = None,
        source_positions: Int[Tensor, "B S"] | None = None,
    ) -> Output:
        """Hidden states (and on demand logits) of the next target token at every place.

        Args:
            tokens: Ids of the target so far, the start token first.
            documents: Document numbers of packed rows, -1 for padding; left out: one document a row.
            positions: Positions; left out: the index in the row.
            cache: What earlier calls left; the new tokens come behind.
            source: Ids of the source; left out where an earlier call on the cache named it.
            source_documents: Its document numbers, the same as the target's in packed rows, -1 for padding.
            source_positions: Its positions; left out: the index in the row.

        Raises:
            UserError: Neither a source nor a cache that knows one.
        """
        memory, read = None, Auxiliary.none()
        if source is not None:
            memory, read = self.encode(source, source_documents, source_positions)
        elif cache is None or cache.memory is None:
            raise UserError("an EncoderDecoder needs a source beside the target: use data that has one, or DecoderOnly")
        x = self.embedding(tokens)
        x, cache, written = self.decoder(x, positions, documents, None, cache, self.embedding.drop, memory)
        return Output(x, self.head, cache, Auxiliary.of_stacks(encoder=read, decoder=written))

    def new_cache(
        self, batch: int, max_len: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Cache:
        """An empty decoding state for targets of up to ``max_len`` tokens; the first call on it brings the source."""
        return self.decoder.new_cache(batch, max_len, dtype, device)

    def prefill(
        self,
        tokens: Int[Tensor, "B N"],
        documents: Int[Tensor, "B N"] | None = None,
        positions: Int[Tensor, "B N"] | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """See the base class: the prompts are sources, and the target begins with the vocabulary's start token."""
        begin = torch.tensor([self.opening(())], device=tokens.device).expand(tokens.shape[0], -1)
        output: Output = self(begin, cache=cache, source=tokens, source_documents=documents, source_positions=positions)
        return output

    def opening(self, prompt: Sequence[int]) -> list[int]:
        """The start token, as the prompt is a source.

        Raises:
            UserError: The vocabulary has neither a token that begins nor one that ends a text.
        """
        start = self.vocabulary.start_id
        if start is None:
            raise UserError("data.tokenizer: has neither a bos nor an eos token, which a target begins with")
        return [start]

    def flops_per_token(self, length: int) -> float:
        """FLOPs per target token where sources are as long as targets; see the base class."""
        dims, source = self.dims, self.source_dims
        both = super().flops_per_token(length) + 12 * dims.n_layers * dims.n_heads * dims.head_size * length
        return both + 12 * source.n_layers * source.n_heads * source.head_size * length

    def flops_by_sequence(self, length: int) -> tuple[float, ...]:
        """FLOPs of a token of the source, whose keys and values the decoder's layers make too, and of the target."""
        dims = self.source_dims
        weights = weights_in_products(self.encoder)
        for layer in self.decoder.layers:
            attention = getattr(layer, "cross_attention", None)
            weights += sum(
                weights_in_products(part) for name in ("key", "value") if (part := getattr(attention, name, None))
            )
        source = 6 * weights + 12 * dims.n_layers * dims.n_heads * dims.head_size * length
        return source, self.flops_per_token(length) - source
