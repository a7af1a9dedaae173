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
# # Sparse and other patterns
#
# A mask is a predicate over (query, key). Masks combine with & and |; a kernel that works in tiles skips those that the
# predicate rules out, so a sparse mask saves time and does not only hide scores.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.analysis.mask_picture import draw_mask
from lit_transformer.blocks import BlockedKernel, BlockSparse, Causal, Dilated, EagerKernel, Sinks, Sites, SlidingWindow, Visibility

masks = {
    "causal": Causal(),
    "window 64": Causal() & SlidingWindow(64),
    "window and sinks": Causal() & (SlidingWindow(64) | Sinks(4)),
    "dilated": Causal() & Dilated(2) & SlidingWindow(128),
    "block-sparse": Causal() & BlockSparse(block=64),
}
for name, mask in masks.items():
    picture = draw_mask(mask, 512)
    print(f"{name:18} sees {picture.visible / 512**2:6.1%} of all pairs, computes {picture.computed:6.1%} of the tiles")

# %% [markdown]
# The share of work that is left as texts grow: a window is linear, causal attention quadratic.

# %%
lengths = [128, 256, 512, 1024]
lines = {name: [Point(n, draw_mask(mask, n).visible) for n in lengths] for name, mask in masks.items()}
line_chart("visible pairs by length", lines, Axis("tokens", log=True), Axis("pairs", log=True))

# %% [markdown]
# The kernel in tiles gives the same numbers as the one that is written to be read.

# %%
torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 2, 256, 16)
sites = Sites(torch.arange(256).unsqueeze(0))
for name, mask in masks.items():
    visible = Visibility(mask, sites, sites)
    assert torch.allclose(EagerKernel()(q, k, v, visible), BlockedKernel()(q, k, v, visible), atol=1e-5), name
