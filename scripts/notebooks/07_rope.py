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


def score(position: RoPE, m: int, n: int) -> float:
    states = [position.prepare(torch.tensor([[p]]), torch.float64) for p in (m, n)]
    turned_q, turned_k = position.rotate(q, k, *states)
    return float((turned_q * turned_k).sum())


# %%
assert abs(score(rope, 7, 3) - score(rope, 1007, 1003)) < 1e-9
print("4 apart at 7 and at 1007:", score(rope, 7, 3), score(rope, 1007, 1003))

# %% [markdown]
# Each pair of dimensions turns at its own speed. Past the trained length, slow waves reach angles that were never seen:
# what scalings of the frequencies repair.

# %%
kinds = {"plain": Scaling, "linear": lambda d: LinearScaling(d, 4), "NTK": lambda d: NTK(d, 4), "YaRN": lambda d: YaRN(d, 4)}
positions = torch.arange(1).unsqueeze(0)
speeds = {name: kind(dims).frequencies(10_000.0, 64, positions, torch.float64).flatten() for name, kind in kinds.items()}
assert torch.allclose(speeds["linear"] * 4, speeds["plain"])
assert torch.isclose(speeds["YaRN"][0], speeds["plain"][0])  # fast waves stay as they are
assert torch.isclose(speeds["NTK"][-1] * 4, speeds["plain"][-1])  # the slowest is stretched by the factor
line_chart("radians a position", {name: [Point(i, float(s)) for i, s in enumerate(each)] for name, each in speeds.items()},
           Axis("pair of dimensions"), Axis("radians", log=True), marks=False)

# %% [markdown]
# With equal queries and keys the score falls with distance, in waves: a mild preference for what is near.

# %%
ones = torch.ones(1, 1, 1, 64, dtype=torch.float64)
q = k = ones
line_chart("score by distance", {"score": [Point(n, score(rope, n, 0) / 64) for n in range(0, 256, 2)]}, Axis("distance"), marks=False)
