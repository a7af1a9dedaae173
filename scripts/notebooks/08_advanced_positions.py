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
# ALiBi takes a penalty off the scores that is linear in distance; T5 learns one number for each bucket of distances; FIRE
# a function of it. Relative ones do not notice when all positions are shifted: measured here, to the last bit of float64.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.analysis.probing import shift_difference
from lit_transformer.blocks import FIRE, ALiBi, CausalRelativeBias, CoPE, NoPosition, RoPE, Sinusoidal, XPos
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

vocabulary = Vocabulary(size=40, eos_id=0, max_len=64)
tokens = torch.randint(1, 40, (2, 24), generator=torch.Generator().manual_seed(0))
shifts = {}
for position in (NoPosition, Sinusoidal, RoPE, XPos, ALiBi, CausalRelativeBias, FIRE, CoPE):
    torch.manual_seed(0)
    network = DecoderOnly(vocabulary, Dims(d_model=32, n_layers=2, n_heads=4), position=position).double().eval()
    shifts[position.__name__] = shift_difference(network, tokens, 1000)
    print(f"{position.__name__:20} {shifts[position.__name__]:.1e}")
assert shifts["Sinusoidal"] > 1e-3 > 1e-9 > max(shifts[name] for name in ("NoPosition", "RoPE", "ALiBi", "CausalRelativeBias"))

# %% [markdown]
# ALiBi's heads look at different distances: each has a slope of its own.

# %%
position = ALiBi(Dims(d_model=32, n_heads=4))
at = position.prepare(torch.arange(64).unsqueeze(0))
q = k = torch.zeros(1, 4, 64, 8)
bias = position.bias(q, k, at, at)
assert bias is not None
table = bias(slice(None), slice(None))[0]  # (H, T, S)
line_chart("penalty by distance", {f"head {h}": [Point(d, float(table[h, 63, 63 - d])) for d in range(64)] for h in range(4)},
           Axis("distance"), marks=False)
# Which of them reads texts longer than it was trained on: lit-transformer study --config studies/positions
