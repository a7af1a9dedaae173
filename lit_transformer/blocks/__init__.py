"""Plain building blocks: torch, jaxtyping and the sizes, nothing else.

Shapes, in one alphabet: B batch, T query length, S key length, D model, H heads, G key/value heads, K head size,
F feed-forward width, V vocabulary, E experts.
"""

from lit_transformer.blocks.attention import Attention, BaseAttention
from lit_transformer.blocks.auxiliary import Auxiliary
from lit_transformer.blocks.cache import Cache, LayerCache, Memory
from lit_transformer.blocks.context import Context, Visibility
from lit_transformer.blocks.cross_attention import CrossAttention
from lit_transformer.blocks.differential_attention import DifferentialAttention
from lit_transformer.blocks.embedding import (
    BiasedHead,
    Embedding,
    Head,
    LinearHead,
    MaskedHead,
    ScaledEmbedding,
    SoftCapped,
    TiedHead,
)
from lit_transformer.blocks.experts import Experts
from lit_transformer.blocks.feed_forward import (
    GEGLU,
    GELU,
    GLU,
    MLP,
    Activation,
    Bilinear,
    FeedForward,
    Gated,
    Identity,
    ReGLU,
    ReLU,
    Sigmoid,
    SiLU,
    SquaredReLU,
    SwiGLU,
    Tanh,
)
from lit_transformer.blocks.flex import FlexKernel
from lit_transformer.blocks.gated_attention import GatedAttention
from lit_transformer.blocks.kernels import BlockedKernel, EagerKernel, FastestKernel, Kernel, SdpaKernel
from lit_transformer.blocks.latent_attention import LatentAttention
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.linear_attention import LinearAttention, PositiveELU, RecurrentState
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
from lit_transformer.blocks.moe import Capacity, Dispatch, Dropless, MixtureOfExperts
from lit_transformer.blocks.norms import BatchNorm, DynamicTanh, LayerNorm, NoNorm, Norm, RMSNorm
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
    NormedPosition,
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
from lit_transformer.blocks.residual import (
    DeepNorm,
    LayerScale,
    OpenStart,
    Parallel,
    ParallelNorms,
    PostNorm,
    PreNorm,
    Residual,
    ReZero,
    Sandwich,
)
from lit_transformer.blocks.routing import (
    Balance,
    BiasBalancing,
    GroupedSwitchRouter,
    LoadBalancingLoss,
    Router,
    RouterZLoss,
    Routing,
    SigmoidRouter,
    SoftmaxRouter,
    SwitchRouter,
    update_balance,
)
from lit_transformer.blocks.stack import Stack

__all__ = [
    "ALiBi", "Activation", "And", "Attention", "Auxiliary", "Balance", "BaseAttention", "BatchNorm",
    "BiasBalancing", "BiasedHead", "BigBird", "Bilinear", "BlockSparse", "BlockedKernel", "Cache", "Capacity",
    "Causal", "CausalRelativeBias", "CoPE", "Context", "CrossAttention", "DeepNorm", "DifferentialAttention",
    "Dilated", "Dispatch", "Documents", "Dropless", "DynamicNTK", "DynamicTanh", "EagerKernel", "Embedding",
    "Experts", "FIRE", "FastestKernel", "FeedForward", "FixedSparse", "FlexKernel", "Full", "GEGLU", "GELU", "GLU",
    "Gated", "GatedAttention", "GlobalTokens", "GroupedSwitchRouter", "Head", "Identity", "InterpolatedLearned",
    "Kernel", "LatentAttention", "Layer", "LayerCache", "LayerNorm", "LayerScale", "Learned", "LinearAttention",
    "LinearHead", "LinearScaling", "Llama3Scaling", "LoadBalancingLoss", "MLP", "Mask", "MaskedHead", "Memory",
    "MixtureOfExperts", "NTK", "NoNorm", "NoPosition", "Norm", "NormedPosition", "OpenStart", "Or", "Parallel",
    "ParallelNorms", "Position", "PositiveELU", "PostNorm", "PreNorm", "PrefixCausal", "RMSNorm", "Randomised",
    "ReGLU", "ReLU", "ReZero", "RecurrentState", "RelativeBias", "Residual", "RoPE", "Router", "RouterZLoss",
    "Routing", "Sandwich", "ScaledEmbedding", "Scaling", "SdpaKernel", "Shaw", "SiLU", "Sigmoid", "SigmoidRouter",
    "Sinks", "Sinusoidal", "Sites", "SlidingWindow", "SoftCapped", "SoftmaxRouter", "SquaredReLU", "Stack",
    "SwiGLU", "SwitchRouter", "Tanh", "TiedHead", "Visibility", "XPos", "YaRN", "update_balance",
]  # fmt: skip
