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
# # BatchNorm, QK norm, dynamic tanh
#
# BatchNorm sees other tokens, and so the future: in training, a causal network with it is none.

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import (
    Attention,
    BatchNorm,
    Causal,
    DynamicTanh,
    EagerKernel,
    Layer,
    LayerNorm,
    RMSNorm,
    Sites,
    Visibility,
)
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

vocabulary = Vocabulary(size=50, eos_id=0, max_len=16)
tokens = torch.randint(1, 50, (4, 16), generator=torch.Generator().manual_seed(0))
other = tokens.clone()
other[:, -1] = (other[:, -1] + 7) % 49 + 1  # another last token


def network(norm: type) -> DecoderOnly:
    torch.manual_seed(0)
    return DecoderOnly(vocabulary, Dims(d_model=32, n_layers=2, n_heads=4), layer=lambda d: Layer(d, norm=norm))


@torch.no_grad()
def leak(model: DecoderOnly) -> float:
    """How much earlier tokens' logits change with the last token."""
    return float((model(tokens).logits - model(other).logits)[:, :-1].abs().max())


leaks = {norm.__name__: leak(network(norm).train()) for norm in (LayerNorm, RMSNorm, DynamicTanh, BatchNorm)}
print(leaks)
assert leaks["BatchNorm"] > 1e-4 and max(value for name, value in leaks.items() if name != "BatchNorm") < 1e-5

# %% [markdown]
# In evaluation it uses running statistics: nothing leaks any more, and its loss is another one, on the same tokens with
# the same weights.


# %%
@torch.no_grad()
def loss(model: DecoderOnly) -> float:
    return float(torch.nn.functional.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()))


batch, layer = network(BatchNorm), network(LayerNorm)
apart = {type(each.stack.norm).__name__: loss(each.train()) - loss(each.eval()) for each in (batch, layer)}
print("loss in training less loss in evaluation:", apart)
assert abs(apart["BatchNorm"]) > 1e-4 and apart["LayerNorm"] == 0 and leak(batch.eval()) < 1e-5

# %% [markdown]
# Dynamic tanh takes no statistics at all: each number goes through a curve on its own, which a norm's do not.

# %%
x = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0))
nudged = x.clone()
nudged[..., 0] += 1
for norm in (DynamicTanh, LayerNorm, RMSNorm):
    part = norm(Dims(d_model=32, n_heads=4))
    changed = int(((part(nudged) - part(x)).abs() > 1e-6).sum())
    print(f"{norm.__name__:12} one number of 32 changes: {changed} change behind it")
    assert changed == (1 if norm is DynamicTanh else 32)

# %% [markdown]
# QK norm keeps scores small however large queries and keys become; without it, large ones look at one token alone.
# Networks with it bear higher learning rates (Wortsman et al., 2023, arXiv:2309.14322, who measured it).

# %%
sites = Sites(torch.arange(16).unsqueeze(0))
visible = Visibility(Causal(), sites, sites)
start = torch.randn(2, 1, 4, 16, 8, generator=torch.Generator().manual_seed(1))
factors = (1, 3, 10, 30, 100)
entropy: dict[str, list[float]] = {"plain": [], "QK norm": []}
for name, each in entropy.items():
    attention = Attention(Dims(d_model=32, n_heads=4), qk_norm=RMSNorm if name == "QK norm" else None)
    for factor in factors:
        q, k = factor * start
        if attention.query_norm is not None and attention.key_norm is not None:
            q, k = attention.query_norm(q, None), attention.key_norm(k, None)
            assert (q @ k.mT / 8**0.5).abs().max() <= 8**0.5 * 1.001  # no score beyond sqrt(K)
        weights = EagerKernel().weights(q, k, visible)[0, :, -1].detach()
        each.append(float(-(weights * weights.clamp(min=1e-12).log()).sum(-1).mean()))
normed = entropy["QK norm"]
assert entropy["plain"][-1] < 0.1 < 1 < min(normed) and max(normed) - min(normed) < 0.01
line_chart(
    "entropy of the last token's attention",
    {
        name: [Point(factor, value) for factor, value in zip(factors, each, strict=True)]
        for name, each in entropy.items()
    },
    Axis("queries and keys times", log=True),
    Axis("nats"),
)
