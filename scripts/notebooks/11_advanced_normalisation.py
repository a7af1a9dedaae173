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
# BatchNorm sees other tokens, and so the future: a causal network with it is none. In evaluation it uses running
# statistics, and its loss is another one.

# %%
import torch

from lit_transformer.analysis.chart import Point, interval_chart
from lit_transformer.blocks import Attention, BatchNorm, DynamicTanh, EagerKernel, Layer, LayerNorm, RMSNorm, Sites, Visibility, Causal
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

vocabulary = Vocabulary(size=50, eos_id=0, max_len=16)
tokens = torch.randint(1, 50, (4, 16), generator=torch.Generator().manual_seed(0))
other = tokens.clone()
other[:, -1] = (other[:, -1] + 7) % 49 + 1  # another last token


# %%
def leak(norm: type) -> float:
    torch.manual_seed(0)
    network = DecoderOnly(vocabulary, Dims(d_model=32, n_layers=2, n_heads=4), layer=lambda d: Layer(d, norm=norm)).train()
    with torch.no_grad():
        return float((network(tokens).logits - network(other).logits)[:, :-1].abs().max())


leaks = {norm.__name__: leak(norm) for norm in (LayerNorm, RMSNorm, DynamicTanh, BatchNorm)}
print(leaks)
assert leaks["BatchNorm"] > 1e-4 and max(value for name, value in leaks.items() if name != "BatchNorm") < 1e-5

# %% [markdown]
# QK norm keeps scores small however large queries and keys become, which lets the learning rate go up.

# %%
sites = Sites(torch.arange(16).unsqueeze(0))
visible = Visibility(Causal(), sites, sites)
entropy = {}
for name, norm in {"plain": None, "QK norm": RMSNorm}.items():
    attention = Attention(Dims(d_model=32, n_heads=4), qk_norm=norm)
    q, k = 30 * torch.randn(2, 1, 4, 16, 8, generator=torch.Generator().manual_seed(1))
    if attention.query_norm is not None and attention.key_norm is not None:
        q, k = attention.query_norm(q, None), attention.key_norm(k, None)
    weights = EagerKernel().weights(q, k, visible)[0, :, -1].detach()
    entropy[name] = float(-(weights * weights.clamp(min=1e-12).log()).sum(-1).mean())
assert entropy["QK norm"] > 4 * entropy["plain"]
interval_chart("entropy of the last token's attention, queries and keys 30 times too large", {n: [Point(0, v)] for n, v in entropy.items()}, "nats")
