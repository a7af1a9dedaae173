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
# put together by hand here, so that we know what we should see; the other three stay as they were drawn.

# %%
import torch

from lit_transformer.analysis.chart import Chart, heat_chart
from lit_transformer.analysis.head_metrics import head_metrics
from lit_transformer.analysis.record import record_attention
from lit_transformer.analysis.rollout import rollout
from lit_transformer.blocks import Attention, BlockedKernel, EagerKernel, Layer, RoPE, SdpaKernel
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

torch.manual_seed(1)
network = DecoderOnly(
    Vocabulary(size=50, eos_id=0, max_len=32),
    Dims(d_model=32, n_layers=2, n_heads=2),
    layer=lambda dims: Layer(dims, attention=lambda d: Attention(d, bias=True)),
    position=RoPE,
).eval()
tokens = torch.randint(1, 50, (1, 6)).repeat(1, 2)

# %% [markdown]
# RoPE turns queries and keys by their positions, and a product is largest where both have turned by the same angle. So
# the head gets one query for all tokens, and one key that is turned one position ahead: the two meet one token back.

# %%
K, rope = 16, network.stack.position
one = torch.full((1, 1, 1, K), 8.0)
query, key = rope.rotate(one, one, *(rope.prepare(torch.tensor([[place]])) for place in (0, 1)))
attention = network.stack.layers[0].attention
with torch.no_grad():
    for product, constant in ((attention.query, query), (attention.key, key)):
        product.weight[:K] = 0  # head 0 does not look at what the tokens are
        product.bias[:K] = constant.flatten()

# %% [markdown]
# The record is the same, whatever computes attention.

# %%
records = []
for kernel in (EagerKernel(), SdpaKernel(), BlockedKernel()):
    network.stack.kernel = kernel
    with record_attention(network) as record, torch.no_grad():
        network(tokens)
    records.append([layer.weights() for layer in record.of("stack")])
assert all(torch.allclose(a, b, atol=1e-5) for other in records[1:] for a, b in zip(records[0], other, strict=True))
for layer in record.of("stack"):
    print(layer.name, "heads", layer.heads, "queries x keys", layer.shape)


# %%
def picture(title: str, weights: torch.Tensor) -> Chart:
    names = [str(i) for i in range(len(weights))]
    cells = {(a, b): round(float(weights[int(a), int(b)]), 3) for a in names for b in names if int(b) <= int(a)}
    return heat_chart(title, names, names, cells)


picture("layer 0, head 0, put together: one token back", record.of("stack")[0].weights()[0, 0])

# %% [markdown]
# A head as it was drawn looks nearly evenly at all that it may see.

# %%
picture("layer 0, head 1, as it starts: nearly even", record.of("stack")[0].weights()[0, 1])

# %% [markdown]
# Metrics say in numbers what a picture shows: how far heads look, how sharply, whether at the previous or first token.
# They find the head that we made.

# %%
table = head_metrics(record, tokens)
print(table.text())
name, head, weight = table.best("previous")
assert (name, head) == ("stack.layers.0.attention", 0) and weight > 0.99
assert float(table["previous"][1:].max()) < 0.3 and float(table["evenness"][1:].min()) > 0.9 > table["evenness"][0]
assert abs(float(table["distance"][0]) - 11 / 12) < 0.01  # one token, but for the first, which has none before it

# %% [markdown]
# Rollout multiplies the layers' weights (half of them the residual path) and tells what reaches the last layer from
# each token.

# %%
first, second = (0.5 * layer.weights()[0].mean(0) + 0.5 * torch.eye(12) for layer in record.of("stack"))
reach = rollout(record.of("stack"))[-1, 0]
assert torch.allclose(reach, second @ first, atol=1e-6) and torch.allclose(reach.sum(-1), torch.ones(12), atol=1e-4)
picture("rollout to the last layer", reach)
# A trained model's page with all of this: lit-transformer attention --checkpoint RUN --text "..." --output page.html
