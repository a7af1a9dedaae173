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
# # Self-attention
#
# Queries, keys and values are products of the same stream. Without positions, self-attention does not know order: put the
# tokens in another order, and the results come in that order.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import Full, NoPosition, RoPE, Stack
from lit_transformer.dims import Dims
from lit_transformer.networks.initialisation import Normal, initialise

torch.manual_seed(0)
dims = Dims(d_model=32, n_layers=1, n_heads=4, max_len=64)


def stack(**parts: object) -> Stack:
    result = Stack(dims, **parts).eval()
    initialise(result, Normal(std=0.2), seed=0, n_layers=1)
    return result


blind = stack(position=NoPosition, mask=Full())
x = torch.randn(1, 10, 32)
order = torch.randperm(10)

# %%
with torch.no_grad():
    straight, shuffled = blind(x)[0], blind(x[:, order])[0]
assert torch.allclose(straight[:, order], shuffled, atol=1e-5)
print("shuffled words, shuffled results: a bag of words")

# %% [markdown]
# With a position, or with a causal mask, order matters.

# %%
for name, each in {"RoPE": stack(position=RoPE, mask=Full()), "causal": stack(position=NoPosition)}.items():
    with torch.no_grad():
        apart = float((each(x)[0][:, order] - each(x[:, order])[0]).abs().max())
    print(f"{name:8} differs by {apart:.3f}")
    assert apart > 1e-3

# %% [markdown]
# Causality, proved by gradients: no token's result depends on a later token.

# %%
causal = stack()
x = x.requires_grad_()
influence = torch.zeros(10, 10)
for i in range(10):
    [gradient] = torch.autograd.grad(causal(x)[0][0, i].sum(), x)
    influence[i] = gradient[0].norm(dim=-1)
assert torch.equal(influence, influence.tril()) and bool((influence.diagonal() > 0).all())
line_chart("how much the last token's result depends on each token",
           {"influence": [Point(j, float(influence[9, j])) for j in range(10)]}, Axis("token"), Axis("gradient norm"))
