# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Residual connections
#
# Where the norm stands decides how gradients reach the first layers: after the addition (post-norm, the original) or
# before the sublayer (pre-norm), or on both sides, or after with a scaled stream (DeepNorm).

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.analysis.probing import gradient_norms
from lit_transformer.blocks import DeepNorm, Layer, LayerNorm, PostNorm, PreNorm, ReZero, Sandwich
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

vocabulary = Vocabulary(size=50, eos_id=0, max_len=16)
tokens = torch.randint(1, 50, (8, 16), generator=torch.Generator().manual_seed(0))


def norms(residual: type, layers: int = 16) -> dict[int, float]:
    torch.manual_seed(0)
    network = DecoderOnly(vocabulary, Dims(d_model=32, n_layers=layers, n_heads=4),
                          layer=lambda dims: Layer(dims, norm=LayerNorm, residual=residual))
    logits = network(tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    return gradient_norms(network, loss)["stack"]


# %%
found = {residual.__name__: norms(residual) for residual in (PostNorm, PreNorm, Sandwich, DeepNorm, ReZero)}
for name, each in found.items():
    values = list(each.values())
    print(f"{name:10} first layer {values[0]:.2e}, last {values[-1]:.2e}")
line_chart("gradient norm at the start, by layer", {name: [Point(i, v) for i, v in each.items()] for name, each in found.items() if min(each.values()) > 0},
           Axis("layer"), Axis("gradient norm", log=True))

# %% [markdown]
# Post-norm's gradients differ most between the ends of the stack: it wants a warm-up. What trains, and at which rate:
# `lit-transformer study --config studies/norms`.

# %%
def spread(name: str) -> float:
    values = [value for value in found[name].values() if value]
    return max(values) / min(values)


print({name: round(spread(name), 1) for name in ("PostNorm", "PreNorm", "DeepNorm")})
