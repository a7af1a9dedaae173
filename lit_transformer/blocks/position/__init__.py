"""Position encodings: how attention gets to know where a token stands. One class and one line of a recipe each."""

from lit_transformer.blocks.position.absolute import InterpolatedLearned, Learned, Sinusoidal
from lit_transformer.blocks.position.alibi import ALiBi, alibi_slopes
from lit_transformer.blocks.position.base import Bias, NoPosition, Position
from lit_transformer.blocks.position.cope import CoPE
from lit_transformer.blocks.position.fire import FIRE
from lit_transformer.blocks.position.normed import NormedPosition
from lit_transformer.blocks.position.randomised import Randomised
from lit_transformer.blocks.position.relative import CausalRelativeBias, RelativeBias, Shaw
from lit_transformer.blocks.position.rotary import RoPE, XPos
from lit_transformer.blocks.position.scaling import (
    NTK,
    DynamicNTK,
    LinearScaling,
    Llama3Scaling,
    Scaling,
    Stretch,
    YaRN,
)

__all__ = [
    "ALiBi", "Bias", "CausalRelativeBias", "CoPE", "DynamicNTK", "FIRE", "InterpolatedLearned", "Learned",
    "LinearScaling", "Llama3Scaling", "NTK", "NoPosition", "NormedPosition", "Position", "Randomised",
    "RelativeBias", "RoPE", "Scaling", "Shaw", "Sinusoidal", "Stretch", "XPos", "YaRN", "alibi_slopes",
]  # fmt: skip
