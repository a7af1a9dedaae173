"""What every architecture has in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.cache import Cache
from lit_transformer.blocks.embedding import Head
from lit_transformer.blocks.linear import Linear
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.vocabulary import Vocabulary


@dataclass
class Output:
    """What a network returns.

    Args:
        hidden: The stream (B, T, D) after the last norm; losses that never hold all logits start from here.
        head: Makes logits of it.
        cache: The advanced decoding state, if one was handed in.
        auxiliary: Losses and statistics that the layers report.
    """

    hidden: Float[Tensor, "B T D"]
    head: Head
    cache: Cache | None = None
    auxiliary: Auxiliary = field(default_factory=Auxiliary.none)

    @property
    def logits(self) -> Float[Tensor, "B T V"]:
        """Scores of every token of the vocabulary."""
        logits: Tensor = self.head(self.hidden)
        return logits

    @property
    def losses(self) -> dict[str, Tensor]:
        """Auxiliary losses by name, weighted: the task adds them to its own."""
        return self.auxiliary.losses

    @property
    def stats(self) -> dict[str, Tensor]:
        """What may be logged, by name: detached; a vector has one entry per expert."""
        return self.auxiliary.stats


class Network(nn.Module):
    """Base of the architectures.

    Args:
        vocabulary: Sizes and special ids of the data.
        dims: Sizes of the stack.
    """

    reads_apart = False
    """Whether an encoder reads the prompt, apart from what is written."""

    def __init__(self, vocabulary: Vocabulary, dims: Dims) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.dims = dims

    def new_cache(
        self, batch: int, max_len: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> Cache:
        """An empty decoding state for ``batch`` rows of up to ``max_len`` tokens.

        Raises:
            UserError: The network does not decode.
        """
        raise UserError(f"{type(self).__name__} does not write text; use a decoder, a prefix-LM or an encoder-decoder")

    def prefill(
        self,
        tokens: Int[Tensor, "B N"],
        documents: Int[Tensor, "B N"] | None = None,
        positions: Int[Tensor, "B N"] | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """Starts decoding from prompts: the last place of the output scores the first new token.

        Args:
            tokens: Prompts; for an encoder-decoder, sources.
            documents: 0, and -1 for padding, which stands on the left; left out: none.
            positions: Positions in the prompts; left out: the index in the row.
            cache: An empty one, with room for the ``opening`` of the prompt beside the new tokens.
        """
        output: Output = self(tokens, documents=documents, positions=positions, cache=cache)
        return output

    def opening(self, prompt: Sequence[int]) -> list[int]:
        """The tokens in the cache after ``prefill``, which new ones follow: the prompt, unless an encoder reads it."""
        return list(prompt)

    def parameter_count(self) -> int:
        """Number of parameters, shared ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, length: int) -> float:
        """FLOPs that training needs per token of sequences of ``length``: forward and backward, nothing recomputed.

        Six per weight that takes part in a product and 12 x layers x H x K x T for the scores and their use, where the
        causal half counts in full: the convention of PaLM (Chowdhery et al., 2022, arXiv:2204.02311, appendix B).
        """
        weights = weights_in_products(self)
        heads = {id(m.weight): m.weight.numel() for m in self.modules() if isinstance(m, Head)}  # one may hold another
        weights += sum(heads.values())
        dims = self.dims
        return 6 * weights + 12 * dims.n_layers * dims.n_heads * dims.head_size * length

    def flops_by_sequence(self, length: int) -> tuple[float, ...]:
        """The same for each sequence of a row: here there is one; an encoder-decoder's are source and target."""
        return (self.flops_per_token(length),)


def weights_in_products(module: nn.Module) -> float:
    """Weights that a token is multiplied with in a module's linear layers; of experts those that it goes to."""
    products = [m for m in module.modules() if isinstance(m, Linear)]
    return sum(m.active_share * p.numel() for m in products for p in m.parameters(recurse=False))
