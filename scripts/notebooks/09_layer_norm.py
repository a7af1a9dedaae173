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
# # LayerNorm and RMSNorm
#
# A norm sets the size of every token's vector: LayerNorm takes off the mean and divides by the deviation, RMSNorm only
# divides by the root mean square. The size of what comes in does not matter any more.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import MLP, Layer, LayerNorm, NoNorm, RMSNorm, Stack
from lit_transformer.dims import Dims
from lit_transformer.networks.initialisation import Normal, initialise

torch.manual_seed(0)
dims = Dims(d_model=64, n_layers=12, n_heads=4, max_len=32)
x = 5 * torch.randn(2, 8, 64) + 3

# %%
by_hand = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
assert torch.allclose(LayerNorm(dims)(x), by_hand, atol=1e-3)
root = x.pow(2).mean(-1, keepdim=True).sqrt()
assert torch.allclose(RMSNorm(dims)(x), x / root, atol=1e-3)
for norm in (LayerNorm(dims), RMSNorm(dims)):
    assert torch.allclose(norm(100 * x), norm(x), atol=1e-3)
shifted = {type(norm).__name__: (norm(x + 3) - norm(x)).abs().max().item() for norm in (LayerNorm(dims), RMSNorm(dims))}
print("all numbers of a token plus 3 change the output by", shifted)
assert shifted["LayerNorm"] < 1e-3 < 0.1 < shifted["RMSNorm"]


# %% [markdown]
# Without norms, the stream grows from layer to layer; with them each layer reads the same size. Weights are as large as
# 1 / sqrt(D) here, so that it shows within twelve layers.


# %%
def sizes(norm: type) -> list[float]:
    stack = Stack(dims, layer=lambda d: Layer(d, norm=norm, feed_forward=MLP)).eval()
    initialise(stack, Normal(std=64**-0.5), seed=0, n_layers=12)
    found: list[float] = []
    for layer in stack.layers:
        layer.feed_forward.register_forward_pre_hook(
            lambda _, given: found.append(float(given[0].pow(2).mean().sqrt()))
        )
    with torch.no_grad():
        stack(torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0)))
    return found


lines = {norm.__name__: sizes(norm) for norm in (NoNorm, LayerNorm, RMSNorm)}
assert all(abs(size - 1) < 0.01 for size in lines["LayerNorm"] + lines["RMSNorm"])
assert lines["NoNorm"] == sorted(lines["NoNorm"]) and lines["NoNorm"][-1] > 100 * lines["NoNorm"][0]
line_chart(
    "size of what the feed-forward reads",
    {name: [Point(i, size) for i, size in enumerate(each)] for name, each in lines.items()},
    Axis("layer"),
    Axis("root mean square", log=True),
)
