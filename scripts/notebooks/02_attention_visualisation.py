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
# # Seeing what heads do
#
# `record_attention` watches any network while it runs, whatever kernel computes it. A head that looks one token back is
# put together by hand here, so that we know what we should see.

# %%
import torch

from lit_transformer.analysis.chart import heat_chart
from lit_transformer.analysis.head_metrics import head_metrics
from lit_transformer.analysis.record import record_attention
from lit_transformer.analysis.rollout import rollout
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

torch.manual_seed(1)
network = DecoderOnly(Vocabulary(size=50, eos_id=0, max_len=32), Dims(d_model=32, n_layers=2, n_heads=2)).eval()
tokens = torch.randint(1, 50, (1, 12))

# %%
with record_attention(network) as record, torch.no_grad():
    network(tokens)
for layer in record.of("stack"):
    print(layer.name, "heads", layer.heads, "texts x tokens", layer.shape)

# %%
weights = record.of("stack")[0].weights()[0, 0]
names = [str(i) for i in range(12)]
heat_chart("layer 0, head 0, as it starts: nearly even", names, names,
           {(a, b): float(weights[int(a), int(b)]) if int(b) <= int(a) else None for a in names for b in names})

# %% [markdown]
# Metrics say in numbers what a picture shows: how far heads look, how sharply, whether at the previous or first token.

# %%
table = head_metrics(record, tokens)
print(table.text())

# %% [markdown]
# Rollout multiplies the layers' weights (with the residual path) and tells what reaches the last layer from each token.

# %%
reach = rollout(record.of("stack"))[-1, 0]
assert torch.allclose(reach.sum(-1), torch.ones(12), atol=1e-4)
heat_chart("rollout to the last layer", names, names,
           {(a, b): float(reach[int(a), int(b)]) if int(b) <= int(a) else None for a in names for b in names})
# A trained model's page with all of this: lit-transformer attention --checkpoint RUN --text "..." --output explorer.html
