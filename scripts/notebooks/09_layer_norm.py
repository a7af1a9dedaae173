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
# divides by the root mean square.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import Layer, LayerNorm, NoNorm, RMSNorm, Stack
from lit_transformer.dims import Dims

torch.manual_seed(0)
dims = Dims(d_model=64, n_layers=12, n_heads=4, max_len=32)
x = 5 * torch.randn(2, 8, 64) + 3

# %%
by_hand = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
assert torch.allclose(LayerNorm(dims)(x), by_hand, atol=1e-3)
root = x.pow(2).mean(-1, keepdim=True).sqrt()
assert torch.allclose(RMSNorm(dims)(x), x / root, atol=1e-3)
print("scaled inputs, same output:", torch.allclose(RMSNorm(dims)(100 * x), RMSNorm(dims)(x), atol=1e-3))


# %% [markdown]
# Without norms, the stream grows or fades from layer to layer; with them each layer starts from the same size.

# %%
def sizes(norm: type) -> list[float]:
    torch.manual_seed(0)
    stack = Stack(dims, layer=lambda d: Layer(d, norm=norm)).eval()
    for parameter in stack.parameters():  # larger than networks start, so that it shows
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.25)
    found: list[float] = []
    for layer in stack.layers:
        layer.feed_forward.register_forward_pre_hook(lambda _, given: found.append(float(given[0].pow(2).mean().sqrt())))
    with torch.no_grad():
        stack(torch.randn(1, 16, 64))
    return found


lines = {norm.__name__: sizes(norm) for norm in (NoNorm, LayerNorm, RMSNorm)}
assert max(lines["RMSNorm"]) < 2 and max(lines["NoNorm"]) > 10
line_chart("size of what the feed-forward reads", {name: [Point(i, v) for i, v in enumerate(each)] for name, each in lines.items()},
           Axis("layer"), Axis("root mean square", log=True))
