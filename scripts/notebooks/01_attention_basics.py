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
# # Attention basics
#
# Every token asks a question (query), every token offers an answer (value) under a name (key). The weight of an answer
# is the softmax of the products of query and keys. Here it is in four lines, beside the kernel that the networks use.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, heat_chart, line_chart
from lit_transformer.blocks import Causal, EagerKernel, Full, SdpaKernel, Sites, Visibility

torch.manual_seed(0)
words = ["the", "cat", "sat", "on", "the", "mat"]
T, K = len(words), 8
q, k, v = torch.randn(3, 1, 1, T, K)  # one text, one head

# %%
scores = q @ k.transpose(-2, -1) / K**0.5  # (1, 1, T, T)
weights = scores.softmax(-1)
assert torch.allclose(weights.sum(-1), torch.ones(T))  # every token shares out one whole
by_hand = weights @ v

# %%
sites = Sites(torch.arange(T).unsqueeze(0))
everything = Visibility(Full(), sites, sites)
assert torch.allclose(by_hand, EagerKernel()(q, k, v, everything), atol=1e-6)


# %% [markdown]
# Why divide by sqrt(K)? Products of long vectors are large, and the softmax of large numbers looks at one key alone.


# %%
def sharpest(size: int, divisor: float) -> float:
    a, b = torch.randn(2, 256, size)
    return float((a @ b.T / divisor).softmax(-1).max(-1).values.mean())


sizes = (8, 32, 128, 512)
plain = [sharpest(size, 1.0) for size in sizes]
scaled = [sharpest(size, size**0.5) for size in sizes]
assert plain[-1] > 0.8 > 0.1 > max(scaled)
lines = {"as they are": plain, "divided by sqrt(K)": scaled}
line_chart(
    "largest of 256 weights",
    {name: [Point(size, value) for size, value in zip(sizes, values, strict=True)] for name, values in lines.items()},
    Axis("K", log=True),
    Axis("weight"),
)

# %% [markdown]
# A causal mask hides what comes later: the future's scores become minus infinity before the softmax.

# %%
past = Visibility(Causal(), sites, sites)
causal = EagerKernel().weights(q, k, past)[0, 0]
later = torch.ones(T, T, dtype=torch.bool).triu(1)
assert torch.allclose(causal, scores[0, 0].masked_fill(later, -torch.inf).softmax(-1), atol=1e-6)
assert torch.equal(causal, causal.tril())
names = [f"{i} {word}" for i, word in enumerate(words)]
heat_chart(
    "who looks at whom",
    names,
    names,
    {(names[i], names[j]): round(float(causal[i, j]), 3) for i in range(T) for j in range(i + 1)},
)

# %% [markdown]
# The fused kernel, which hands out no weights, gives the same results.

# %%
assert torch.allclose(EagerKernel()(q, k, v, past), SdpaKernel()(q, k, v, past), atol=1e-6)
