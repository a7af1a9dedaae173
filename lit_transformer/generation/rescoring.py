"""What is added to the scores of finished beams before the best is taken."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_transformer.blocks.kernels import EagerKernel
from lit_transformer.errors import UserError
from lit_transformer.generation.runner import left_padded
from lit_transformer.networks.base import Network
from lit_transformer.networks.encoder_decoder import EncoderDecoder


class Rescoring:
    """Base: looks at whole beams, once."""

    def __call__(self, network: Network, rows: Sequence[Sequence[int]], tokens: Tensor, lengths: Tensor) -> Tensor:
        """What is added to the scores (B, K) of beams with tokens (B, K, N), of which ``lengths`` (B, K) count."""
        raise NotImplementedError


class Coverage(Rescoring):
    """Beams that look at every token of the source score better: ``strength * sum(log(min(1, attention received)))``
    (Wu et al., 2016, arXiv:1609.08144), by the last layer's cross-attention, the mean of its heads.

    Args:
        strength: Factor of the sum; 0.2 in the paper.
    """  # fmt: skip

    def __init__(self, strength: float = 0.2) -> None:
        self.strength = strength

    def __call__(self, network: Network, rows: Sequence[Sequence[int]], tokens: Tensor, lengths: Tensor) -> Tensor:
        """See the base class."""
        count, beams, steps = tokens.shape
        received, real = self.attention(network, rows, tokens, lengths)
        logs = received.clamp(min=1e-6, max=1.0).log().masked_fill(~real, 0.0)
        return self.strength * logs.sum(-1).view(count, beams)

    def attention(
        self, network: Network, rows: Sequence[Sequence[int]], tokens: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each token of the source receives over all tokens of a beam, (B x K, S), and which are no padding.

        Raises:
            UserError: The network has no cross-attention.
        """
        if not isinstance(network, EncoderDecoder):
            raise UserError("coverage: needs an encoder-decoder, whose cross-attention it looks at")
        count, beams, steps = tokens.shape
        device = tokens.device
        source, documents, positions = (each.repeat_interleave(beams, 0) for each in left_padded(rows, device))
        start = torch.tensor(network.opening(()), device=device).expand(count * beams, -1)
        text = torch.cat((start, tokens.flatten(0, 1)), 1)[:, :-1]
        attention: Any = network.decoder.layers[-1].cross_attention
        seen: list[Any] = []
        hook = attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
        try:
            network(text, source=source, source_documents=documents, source_positions=positions)
        finally:
            hook.remove()
        x, context, *_ = seen[0]
        q, k = attention._heads(attention.query(x)), attention._heads(attention.key(context.memory))
        if attention.query_norm is not None:
            q, k = attention.query_norm(q, context), attention.key_norm(k, context)
        weights = EagerKernel().weights(q, k, context.memory_visible, None, attention.soft_cap).mean(1)
        counted = torch.arange(steps, device=device) < lengths.flatten().unsqueeze(-1)
        return (weights * counted.unsqueeze(-1)).sum(1), documents >= 0
