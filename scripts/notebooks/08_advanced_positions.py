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
# # Positions that act on scores, or not at all
#
# Relative positions do not notice when all positions are shifted: measured here, in float64. Sinusoidal waves do; so
# does FIRE, which sets a distance against how far the query itself is.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.analysis.probing import shift_difference
from lit_transformer.blocks import (
    FIRE,
    ALiBi,
    CausalRelativeBias,
    CoPE,
    NoPosition,
    Position,
    RoPE,
    Sinusoidal,
    XPos,
)
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.networks.initialisation import Normal
from lit_transformer.vocabulary import Vocabulary

vocabulary = Vocabulary(size=40, eos_id=0, max_len=64)
dims = Dims(d_model=32, n_layers=2, n_heads=4, max_len=64)
tokens = torch.randint(1, 40, (2, 24), generator=torch.Generator().manual_seed(0))
for position in (NoPosition, RoPE, XPos, ALiBi, CausalRelativeBias, CoPE, FIRE, Sinusoidal):
    torch.manual_seed(0)
    network = DecoderOnly(vocabulary, dims, position=position, initialisation=Normal(std=0.2)).double().eval()
    change = shift_difference(network, tokens, 1000)
    print(f"{position.__name__:20} logits change by {change:.1e}")
    assert change > 1e-3 if position in (FIRE, Sinusoidal) else change < 1e-9


# %% [markdown]
# ALiBi takes a penalty off the scores that is linear in distance, with a slope of its own for each head, so that heads
# look at different distances.


# %%
def by_distance(position: Position) -> torch.Tensor:
    """What the last of 256 queries gets added to its scores: (H, distance)."""
    at = position.prepare(torch.arange(256).unsqueeze(0))
    q = k = torch.zeros(1, 4, 256, 8)
    bias = position.bias(q, k, at, at)
    assert bias is not None
    return bias(slice(255, 256), slice(None))[0, :, 0].flip(-1).detach()


penalty = by_distance(ALiBi(dims))
slopes = penalty.diff()
assert torch.allclose(slopes, slopes[:, :1].expand_as(slopes), atol=1e-4)  # linear
assert (slopes[1:, 0] / slopes[:-1, 0] - 0.25).abs().max() < 1e-4  # each head a quarter of the one before
line_chart(
    "ALiBi: added to the score, by distance",
    {f"head {h}": [Point(d, float(penalty[h, d])) for d in range(64)] for h in range(4)},
    Axis("distance"),
    marks=False,
)

# %% [markdown]
# T5 learns one number for each bucket of distances, near ones exactly and far ones together; FIRE learns a function of
# distance. Here is one head of each, with random numbers in the place of learned ones.

# %%
learned = {}
for position in (CausalRelativeBias(dims), FIRE(dims)):
    for name, parameter in position.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
        if name in ("steepness", "threshold_factor"):
            position.initialise_parameter(name, parameter, torch.Generator())
    learned[type(position).__name__] = by_distance(position)[0]
t5, fire = learned.values()
assert len(t5.unique()) == 32 and len(t5[:16].unique()) == 16 and len(t5[128:].unique()) == 1
assert (fire.diff() != 0).all()
line_chart(
    "learned: added to the score, by distance",
    {name: [Point(d, float(value)) for d, value in enumerate(each)] for name, each in learned.items()},
    Axis("distance"),
    marks=False,
)
# Which of them reads texts longer than it was trained on: lit-transformer study --config studies/positions
