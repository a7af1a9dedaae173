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
# # A mini-GPT
#
# Put together from parts, trained on a text, and asked to write. `lit-transformer fit --config quickstart` does it with
# data, checkpoints, logs and resume.

# %%
import torch
import torch.nn.functional as F

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import Attention, Layer, RMSNorm, RoPE, SwiGLU
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.training.muon import Muon
from lit_transformer.training.optimizers import parameter_groups
from lit_transformer.vocabulary import Vocabulary

verse = "to be, or not to be: that is the question. whether 'tis nobler in the mind to suffer. "
text = verse * 40
letters = sorted(set(text))
ids = torch.tensor([letters.index(letter) for letter in text])
torch.manual_seed(0)

# %%
network = DecoderOnly(
    Vocabulary(size=len(letters), max_len=48),
    Dims(d_model=48, n_layers=2, n_heads=4),
    layer=lambda d: Layer(d, lambda e: Attention(e, qk_norm=RMSNorm), feed_forward=SwiGLU, norm=RMSNorm),
    position=RoPE,
)
print(f"{network.parameter_count():,} parameters, {network.flops_per_token(48):,.0f} FLOPs a token")
optimizer = Muon(parameter_groups(network), lr=5e-3)

# %%
losses = []
for _ in range(60):
    starts = torch.randint(0, len(ids) - 49, (8,))
    rows = torch.stack([ids[start : start + 49] for start in starts])
    loss = F.cross_entropy(network(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"from {losses[0]:.2f} to {losses[-1]:.2f} nats a letter")
assert losses[-1] < 0.2 * losses[0]
line_chart(
    "training",
    {"loss": [Point(step, value) for step, value in enumerate(losses)]},
    Axis("step"),
    Axis("nats a letter"),
    marks=False,
)

# %% [markdown]
# Writing: one letter at a time, with a cache of keys and values, so that each step computes one token only. It says the
# same as reading the whole text anew.

# %%
network.eval()
written = "to be"
prompt = torch.tensor([[letters.index(letter) for letter in written]])
with torch.no_grad():
    output = network.prefill(prompt, cache=network.new_cache(1, 48))
    for _ in range(40):
        letter = output.logits[0, -1].argmax()
        written += letters[int(letter)]
        output = network(letter.view(1, 1), cache=output.cache)
        assert output.hidden.shape[1] == 1
    whole = network(torch.tensor([[letters.index(letter) for letter in written]])).logits[0, -1]
print(written)
assert len(written) == 45 and written in verse
assert torch.allclose(output.logits[0, -1], whole, atol=1e-4)
