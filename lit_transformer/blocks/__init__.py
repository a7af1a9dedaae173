"""Plain building blocks: torch, jaxtyping and the sizes, nothing else.

Shapes, in one alphabet: B batch, T query length, S key length, D model, H heads, G key/value heads, K head size,
F feed-forward width, V vocabulary, E experts.
"""

from lit_transformer.blocks.attention import Attention, BaseAttention
from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.cache import Cache, LayerCache
from lit_transformer.blocks.context import Context, Visibility
from lit_transformer.blocks.embedding import Embedding, Head, LinearHead, ScaledEmbedding, TiedHead
from lit_transformer.blocks.feed_forward import GEGLU, MLP, FeedForward, SwiGLU
from lit_transformer.blocks.kernels import EagerKernel, Kernel, SdpaKernel
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.masks import Causal, Documents, Full, Mask, Sites
from lit_transformer.blocks.norms import LayerNorm, Norm, RMSNorm
from lit_transformer.blocks.position import ALiBi, Learned, NoPosition, Position, RoPE, Sinusoidal
from lit_transformer.blocks.residual import PostNorm, PreNorm, Residual
from lit_transformer.blocks.stack import Stack

__all__ = [
    "GEGLU", "MLP", "ALiBi", "Attention", "Cache", "Causal", "Context", "Documents", "EagerKernel", "Embedding",
    "FeedForward", "Full", "Head", "Kernel", "Layer", "LayerCache", "LayerNorm", "Learned", "LinearHead", "Mask",
    "NoPosition", "Norm", "Position", "PostNorm", "PreNorm", "RMSNorm", "Residual", "RoPE", "ScaledEmbedding",
    "SdpaKernel", "Sinusoidal", "Sites", "Stack", "SwiGLU", "TiedHead", "Visibility",
]  # fmt: skip
