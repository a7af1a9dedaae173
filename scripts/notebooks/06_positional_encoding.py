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
# # Positional encoding
#
# The original: waves of many lengths added to the embeddings.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import Learned, Sinusoidal
from lit_transformer.dims import Dims, SizeError

dims = Dims(d_model=64, n_heads=4, max_len=128)
encoding = Sinusoidal(dims)
waves = encoding.prepare(torch.arange(128).unsqueeze(0))[0]  # (T, D)
x = torch.randn(2, 128, 64)
assert torch.allclose(encoding.embed(x, waves.unsqueeze(0)), x + waves)
line_chart(
    "four of the waves",
    {f"dimension {d}": [Point(t, float(waves[t, d])) for t in range(128)] for d in (0, 4, 8, 16)},
    Axis("position"),
    marks=False,
)

# %% [markdown]
# Two positions' waves have a product that depends on their distance alone. It is largest at distance 0 and falls from
# there, not evenly but in ripples: on average, what is far has less in common.

# %%
products = waves @ waves.T
for shift in (1, 10, 50):
    values = products.diagonal(shift)
    print(f"distance {shift:2}: {values.mean():.2f}, the same everywhere to {values.std():.0e}")
    assert float(values.std()) < 1e-3
by_distance = torch.stack([products.diagonal(shift).mean() for shift in range(96)])
octaves = [float(by_distance[low : 2 * low].mean()) for low in (1, 2, 4, 8, 16, 32)]
assert by_distance.argmax() == 0 and octaves == sorted(octaves, reverse=True)
assert by_distance.diff().max() > 0  # a ripple
line_chart(
    "product of waves by distance",
    {"product": [Point(s, float(each)) for s, each in enumerate(by_distance)]},
    Axis("distance"),
    marks=False,
)

# %% [markdown]
# A learned table knows nothing beyond its end, and says so.

# %%
table = Learned(dims)
table.prepare(torch.arange(128).unsqueeze(0))
try:
    table.prepare(torch.arange(129).unsqueeze(0))
except SizeError as error:
    print(error)
else:
    raise AssertionError("the table must end")
