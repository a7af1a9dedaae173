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
# # Several heads
#
# Heads look in different subspaces. They cost nothing: H heads of size D / H have the parameters of one of size D. Fewer
# key and value heads (grouped-query, multi-query) save the cache of decoding.

# %%
import torch

from lit_transformer.analysis.chart import Point, interval_chart
from lit_transformer.blocks import Attention
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary


def parameters(**sizes: int) -> int:
    return sum(p.numel() for p in Attention(Dims(d_model=128, **sizes)).parameters())


for heads in (1, 2, 4, 8):
    print(f"{heads} heads: {parameters(n_heads=heads):,} parameters")
assert parameters(n_heads=1) == parameters(n_heads=8) == 4 * 128 * 128

# %%
vocabulary = Vocabulary(size=64, eos_id=0, max_len=256)
kinds = {"multi-head": 8, "grouped-query": 2, "multi-query": 1}
networks = {name: DecoderOnly(vocabulary, Dims(d_model=128, n_layers=2, n_heads=8, n_kv_heads=groups)) for name, groups in kinds.items()}
sizes = {name: network.new_cache(1, 256).nbytes for name, network in networks.items()}
assert sizes["multi-head"] == 4 * sizes["grouped-query"] == 8 * sizes["multi-query"]
interval_chart("bytes of the cache of 256 tokens", {name: [Point(0, size)] for name, size in sizes.items()}, "bytes")

# %% [markdown]
# Grouped-query attention with as many groups as heads is multi-head attention. Which heads do alike?

# %%
from lit_transformer.analysis.record import record_attention
from lit_transformer.analysis.similarity import clustered, head_distances

torch.manual_seed(0)
network = networks["multi-head"].eval()
with record_attention(network) as record, torch.no_grad():
    network(torch.randint(1, 64, (2, 32)))
distances = head_distances(record.of("stack"))
print("heads in an order that puts like beside like:", clustered(distances[-1] if isinstance(distances, tuple) else distances)[:8])
