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
# # Residual connections
#
# What a sublayer finds is added to the stream that goes past it. Without that stream every token is a mean of others,
# of others, of others: after a few layers all are alike (Dong et al., 2021, arXiv:2103.03404).

# %%
import torch

from lit_transformer.analysis.chart import Axis, Point, line_chart
from lit_transformer.blocks import MLP, DeepNorm, Layer, LayerNorm, PostNorm, PreNorm, ReLU, Sandwich
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.networks.initialisation import Normal
from lit_transformer.vocabulary import Vocabulary

D, depths = 32, (2, 4, 8, 16)
tokens = torch.randint(1, 50, (8, 16), generator=torch.Generator().manual_seed(0))


class NoStream(PreNorm):
    """``f(norm(x))``: nothing goes past."""

    def step(self, x, i, sublayer, context):
        return sublayer(self.norms[i](x, context))


def network(residual: type, n_layers: int, seed: int) -> DecoderOnly:
    """As in Xiong et al.: LayerNorm, ReLU, weights of about Xavier's size that do not depend on the depth."""
    torch.manual_seed(seed)
    return DecoderOnly(
        Vocabulary(size=50, eos_id=0, max_len=16),
        Dims(d_model=D, n_layers=n_layers, n_heads=4),
        layer=lambda dims: Layer(dims, norm=LayerNorm, residual=residual, feed_forward=lambda d: MLP(d, ReLU)),
        initialisation=Normal(std=(2 / (D + 4 * D)) ** 0.5),
    )


@torch.no_grad()
def alike(residual: type, n_layers: int) -> float:
    """Mean cosine between the second halves' tokens: 1 where all are the same."""
    states = torch.nn.functional.normalize(network(residual, n_layers, 0)(tokens).hidden[:, 8:], dim=-1)
    return float((states @ states.mT).mean())


cosines = {each.__name__: [alike(each, n) for n in depths] for each in (NoStream, PreNorm)}
assert min(cosines["NoStream"][1:]) > 0.99 and max(cosines["PreNorm"]) < 0.9
line_chart(
    "how alike the tokens of a text are at the end",
    {name: [Point(n, value) for n, value in zip(depths, values, strict=True)] for name, values in cosines.items()},
    Axis("layers", log=True),
    Axis("mean cosine"),
)

# %% [markdown]
# Where the norm stands decides how large the gradients at the end of a deep stack are. Behind the addition (post-norm,
# the original) the last feed-forward's gradient is as large in a deep stack as in a shallow one; before the sublayer
# (pre-norm) it falls with the square root of the depth. So Xiong et al. (2020, arXiv:2002.04745) derive, and explain by
# it why post-norm needs a warm-up and pre-norm does not. Sandwich (norms on both sides) and DeepNorm (post-norm with a
# weighted stream and a smaller start) fall as well.


# %%
def last_gradient(residual: type, n_layers: int, seed: int) -> float:
    model = network(residual, n_layers, seed)
    logits = model(tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    return float(torch.autograd.grad(loss, model.stack.layers[-1].feed_forward.down.weight)[0].norm())


found = {
    residual.__name__: [torch.tensor([last_gradient(residual, n, seed) for seed in range(3)]) for n in depths]
    for residual in (PostNorm, PreNorm, Sandwich, DeepNorm)
}
falls = {name: float(each[0].mean() / each[-1].mean()) for name, each in found.items()}
print("2 layers' gradient over that of 16:", {name: round(value, 2) for name, value in falls.items()}, "sqrt(8): 2.83")
assert 0.7 < falls["PostNorm"] < 1.3
assert all(2 < falls[name] < 4 for name in ("PreNorm", "Sandwich", "DeepNorm"))
line_chart(
    "gradient norm of the last feed-forward, at the start (three seeds)",
    {
        name: [Point(n, float(v.mean()), float(v.min()), float(v.max())) for n, v in zip(depths, each, strict=True)]
        for name, each in found.items()
    },
    Axis("layers", log=True),
    Axis("gradient norm", log=True),
)
# What trains, and at which rate: lit-transformer study --config studies/norms
