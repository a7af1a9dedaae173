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
# A mask is a predicate over (query, key). Masks combine with & and |.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.analysis.mask_picture import draw_mask
from lit_transformer.blocks import (
    BlockedKernel,
    BlockSparse,
    Causal,
    Dilated,
    EagerKernel,
    Sinks,
    Sites,
    SlidingWindow,
    Visibility,
)

masks = {
    "causal": Causal(),
    "window 64": Causal() & SlidingWindow(64),
    "window and sinks": Causal() & (SlidingWindow(64) | Sinks(4)),
    "dilated": Causal() & Dilated(2) & SlidingWindow(128),
    "block-sparse": Causal() & BlockSparse(block=64),
}
pictures = {name: draw_mask(mask, 512) for name, mask in masks.items()}
for name, picture in pictures.items():
    print(f"{name:18} sees {picture.density:6.1%} of all pairs, which lie in {picture.computed:6.1%} of the tiles")
assert all(each.computed < pictures["causal"].computed for name, each in pictures.items() if name != "causal")
pictures["window and sinks"]

# %%
pictures["block-sparse"]

# %% [markdown]
# The pairs that are left as texts grow: those of a window grow with the length, those of causal attention with its
# square.

# %%
lengths = [128, 256, 512, 1024]
visible = {name: [draw_mask(mask, n).visible for n in lengths] for name, mask in masks.items()}
growth = {name: counts[-1] / counts[-2] for name, counts in visible.items()}  # from 512 tokens to 1024
assert growth["causal"] > 3.9 and growth["window 64"] < 2.1
line_chart(
    "visible pairs by length",
    {name: [Point(n, count) for n, count in zip(lengths, counts, strict=True)] for name, counts in visible.items()},
    Axis("tokens", log=True),
    Axis("pairs", log=True),
)

# %% [markdown]
# The kernel in tiles gives the same numbers as the one that is written to be read.

# %%
torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 2, 512, 16)
sites = Sites(torch.arange(512).unsqueeze(0))
for name, mask in masks.items():
    seen = Visibility(mask, sites, sites)
    assert torch.allclose(EagerKernel()(q, k, v, seen), BlockedKernel()(q, k, v, seen), atol=1e-5), name

# %% [markdown]
# But it skips the tiles that the predicate rules out; it does not only hide their scores. Proof: keys and values that
# are no numbers spoil whatever reads them, even with a weight of zero. Behind a window of 64, the last 64 tokens do not
# notice that the first 256 are spoilt.

# %%
k[:, :, :256] = v[:, :, :256] = torch.nan
window = Visibility(masks["window 64"], sites, sites)
assert BlockedKernel()(q, k, v, window)[:, :, -64:].isfinite().all()
assert EagerKernel()(q, k, v, window)[:, :, -64:].isnan().all()
