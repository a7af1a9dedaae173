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
# # Rotary positions
#
# RoPE turns queries and keys by an angle proportional to their position. Turning both by the same angle changes no
# product, so only differences of positions matter.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import NTK, LinearScaling, RoPE, Scaling, YaRN
from lit_transformer.dims import Dims

torch.manual_seed(0)
dims = Dims(d_model=64, n_heads=1, max_len=64)
rope = RoPE(dims)
q, k = torch.randn(2, 1, 1, 1, 64, dtype=torch.float64)


def score(q: torch.Tensor, k: torch.Tensor, m: int, n: int) -> float:
    turned_q, turned_k = rope.rotate(q, k, *(rope.prepare(torch.tensor([[p]]), torch.float64) for p in (m, n)))
    return float((turned_q * turned_k).sum())


# %%
print("4 apart at 7 and at 1007:", score(q, k, 7, 3), score(q, k, 1007, 1003), "5 apart:", score(q, k, 7, 2))
assert abs(score(q, k, 7, 3) - score(q, k, 1007, 1003)) < 1e-9
assert abs(score(q, k, 7, 3) - score(q, k, 7, 2)) > 0.01

# %% [markdown]
# With equal queries and keys the score falls with distance, in waves: a mild preference for what is near.

# %%
one = torch.ones(1, 1, 1, 64, dtype=torch.float64)
by_distance = torch.tensor([score(one, one, n, 0) / 64 for n in range(256)])
octaves = [float(by_distance[low : 2 * low].mean()) for low in (1, 2, 4, 8, 16, 32, 64, 128)]
assert by_distance.argmax() == 0 and octaves == sorted(octaves, reverse=True)
assert by_distance.diff().max() > 0  # a wave
line_chart(
    "score by distance",
    {"score": [Point(n, float(each)) for n, each in enumerate(by_distance)]},
    Axis("distance"),
    marks=False,
)

# %% [markdown]
# Each pair of dimensions turns at its own speed. Past the trained length, slow pairs reach angles that were never seen.
# Scalings of the speeds hold them within: all pairs alike (linear), or the slow ones only (NTK, YaRN).

# %%
kinds = {
    "plain": Scaling,
    "linear": lambda d: LinearScaling(d, 4),
    "NTK": lambda d: NTK(d, 4),
    "YaRN": lambda d: YaRN(d, 4),
}
positions = torch.arange(1).unsqueeze(0)
speeds = {
    name: kind(dims).frequencies(10_000.0, 64, positions, torch.float64).flatten() for name, kind in kinds.items()
}
trained = 64 * speeds["plain"]  # the angle of each pair at the end of the trained length
for name, each in speeds.items():
    share = float(4 * 64 * each[-1] / trained[-1])
    print(f"{name:6} 4 times as far, the slowest pair turns {share:.2f} of what was seen")
    assert (share < 1.001) == (name != "plain")
assert torch.allclose(speeds["linear"] * 4, speeds["plain"])
assert torch.isclose(speeds["NTK"][0], speeds["plain"][0]) and torch.isclose(speeds["YaRN"][0], speeds["plain"][0])
line_chart(
    "radians a position",
    {name: [Point(i, float(s)) for i, s in enumerate(each)] for name, each in speeds.items()},
    Axis("pair of dimensions"),
    Axis("radians", log=True),
    marks=False,
)
