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
from lit_transformer.blocks.masks import (
    And,
    BigBird,
    BlockSparse,
    Causal,
    Dilated,
    Documents,
    FixedSparse,
    Full,
    GlobalTokens,
    Mask,
    Or,
    PrefixCausal,
    Sinks,
    Sites,
    SlidingWindow,
)
from lit_transformer.blocks.norms import LayerNorm, Norm, RMSNorm
from lit_transformer.blocks.position import (
    FIRE,
    NTK,
    ALiBi,
    CausalRelativeBias,
    CoPE,
    DynamicNTK,
    InterpolatedLearned,
    Learned,
    LinearScaling,
    Llama3Scaling,
    NoPosition,
    Position,
    Randomised,
    RelativeBias,
    RoPE,
    Scaling,
    Shaw,
    Sinusoidal,
    XPos,
    YaRN,
)
from lit_transformer.blocks.residual import PostNorm, PreNorm, Residual
from lit_transformer.blocks.stack import Stack

__all__ = [
    "FIRE", "GEGLU", "MLP", "NTK", "ALiBi", "And", "Attention", "BigBird", "BlockSparse", "Cache", "Causal",
    "CausalRelativeBias", "CoPE", "Context", "Dilated", "Documents", "DynamicNTK", "EagerKernel", "Embedding",
    "FeedForward", "FixedSparse", "Full", "GlobalTokens", "Head", "InterpolatedLearned", "Kernel", "Layer",
    "LayerCache", "LayerNorm", "Learned", "LinearHead", "LinearScaling", "Llama3Scaling", "Mask", "NoPosition",
    "Norm", "Or", "Position", "PostNorm", "PreNorm", "PrefixCausal", "RMSNorm", "Randomised", "RelativeBias",
    "Residual", "RoPE", "ScaledEmbedding", "Scaling", "SdpaKernel", "Shaw", "Sinks", "Sinusoidal", "Sites",
    "SlidingWindow", "Stack", "SwiGLU", "TiedHead", "Visibility", "XPos", "YaRN",
]  # fmt: skip
