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
# Queries, keys and values are products of the same stream.

# %%
import torch

from lit_transformer.analysis.chart import heat_chart
from lit_transformer.blocks import EagerKernel, Full, NoPosition, RoPE, Sites, Stack, Visibility
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

# %%
attention = blind.layers[0].attention
seen = []
handle = attention.register_forward_hook(lambda _, given, result: seen.extend((given[0], result[0])))
with torch.no_grad():
    blind(x)
    handle.remove()
    stream, found = seen
    q, k, v = (
        part(stream).view(1, 10, 4, 8).transpose(1, 2) for part in (attention.query, attention.key, attention.value)
    )
    sites = Sites(torch.arange(10).unsqueeze(0))
    gathered = EagerKernel()(q, k, v, Visibility(Full(), sites, sites))  # (1, H, T, K)
    assert torch.allclose(attention.output(gathered.transpose(1, 2).flatten(2)), found, atol=1e-5)

# %% [markdown]
# Without positions, self-attention does not know order: put the tokens in another order, and the results come in that
# order.

# %%
order = torch.randperm(10)
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
    assert apart > 0.1

# %% [markdown]
# Causality, seen in gradients: a token's result depends on itself and on what came before, and on nothing later.

# %%
causal = stack()
x = x.requires_grad_()
influence = torch.zeros(10, 10)
for i in range(10):
    [gradient] = torch.autograd.grad(causal(x)[0][0, i].sum(), x)
    influence[i] = gradient[0].norm(dim=-1)
assert torch.equal(influence, influence.tril()) and bool((influence[torch.ones(10, 10).tril() > 0] > 0).all())
names = [str(i) for i in range(10)]
heat_chart(
    "gradient of each token's result (rows) by each token (columns)",
    names,
    names,
    {(i, j): round(float(influence[int(i), int(j)]), 2) for i in names for j in names if int(j) <= int(i)},
)
