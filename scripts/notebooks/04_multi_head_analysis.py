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
# H heads of size D / H have as many parameters as one of size D.

# %%
import torch

from lit_transformer.analysis.chart import Point, heat_chart, interval_chart
from lit_transformer.analysis.record import record_attention
from lit_transformer.analysis.similarity import clustered, head_distances
from lit_transformer.blocks import Attention
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.networks.initialisation import Normal
from lit_transformer.vocabulary import Vocabulary


def parameters(**sizes: int) -> int:
    return sum(p.numel() for p in Attention(Dims(d_model=128, **sizes)).parameters())


for heads in (1, 2, 4, 8):
    print(f"{heads} heads: {parameters(n_heads=heads):,} parameters")
    assert parameters(n_heads=heads) == 4 * 128 * 128

# %% [markdown]
# Fewer key and value heads (grouped-query, multi-query) save the cache of decoding.

# %%
vocabulary = Vocabulary(size=64, eos_id=0, max_len=256)


def network(groups: int) -> DecoderOnly:
    torch.manual_seed(0)
    dims = Dims(d_model=128, n_layers=2, n_heads=8, n_kv_heads=groups)
    # Weights start larger than usual, so that heads differ.
    return DecoderOnly(vocabulary, dims, initialisation=Normal(std=0.2)).eval()


networks = {name: network(groups) for name, groups in {"multi-head": 8, "grouped-query": 2, "multi-query": 1}.items()}
sizes = {name: each.new_cache(1, 256).nbytes for name, each in networks.items()}
assert sizes["multi-head"] == 4 * sizes["grouped-query"] == 8 * sizes["multi-query"]
interval_chart("cache of 256 tokens", {name: [Point(0, size)] for name, size in sizes.items()}, "bytes")

# %% [markdown]
# Grouped-query attention is multi-head attention whose heads share keys and values: repeat them, and nothing changes.

# %%
tokens = torch.randint(1, 64, (2, 32))
repeated = {
    name: weight.view(2, 16, 128).repeat_interleave(4, dim=0).flatten(0, 1)
    if name.endswith(("key.weight", "value.weight"))
    else weight
    for name, weight in networks["grouped-query"].state_dict().items()
}
multi = network(8)
multi.load_state_dict(repeated)
with torch.no_grad():
    assert torch.allclose(multi(tokens).logits, networks["grouped-query"](tokens).logits, atol=1e-4)

# %% [markdown]
# Each head compares tokens in a subspace of its own, so heads look at different places. Which do alike? The distance is
# 0 for heads that do the same and 1 bit for heads with nothing in common. Head 5 of the first layer is made a copy of
# head 2 here: the two are found, and stand side by side in an order that puts like beside like.

# %%
model = networks["multi-head"]
first = model.stack.layers[0].attention
with torch.no_grad():
    for product in (first.query, first.key):
        by_head = product.weight.view(8, 16, 128)
        by_head[5] = by_head[2]
with record_attention(model) as record, torch.no_grad():
    model(tokens)
distances = head_distances(record.of("stack")[:1])
order = clustered(distances)
others = distances[~torch.eye(8, dtype=torch.bool)].sort().values[2:]  # but for the pair, which is there twice
assert distances[2, 5] < 1e-6 and others.min() > 0.05 and abs(order.index(2) - order.index(5)) == 1
heat_chart(
    "distances between the heads of the first layer, in bits",
    [f"head {i}" for i in order],
    [f"head {j}" for j in order],
    {(f"head {i}", f"head {j}"): round(float(distances[i, j]), 3) for i in order for j in order},
)
