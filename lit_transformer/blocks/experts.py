"""Experts side by side: one feed-forward whose products are grouped, each token meeting its own expert's weights."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lit_transformer.blocks.context import Context
from lit_transformer.blocks.feed_forward import FeedForward
from lit_transformer.blocks.linear import Linear, ResidualLinear
from lit_transformer.dims import Dims, SizeError


class Segments:
    """Which rows belong to which expert; rows are sorted by expert. Shared by the products of one ``Experts``.

    Args:
        ends: Where each expert's rows end, (E,) int32; None: all experts have equally many.
    """

    def __init__(self, ends: Tensor | None = None) -> None:
        self.ends = ends


class GroupedLinear(Linear):
    """``x @ W[e].T + b[e]`` with the expert e of each row.

    Args:
        like: The product of a single expert.
        n_experts: Number E of experts.
        segments: Tells the experts of the rows; filled in by ``Experts`` before each call.
    """

    def __init__(self, like: Linear, n_experts: int, segments: Segments) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = like.in_features, like.out_features
        self.segments = segments
        self.weight = nn.Parameter(torch.empty(n_experts, like.out_features, like.in_features))
        self.bias = nn.Parameter(torch.empty(n_experts, like.out_features)) if like.bias is not None else None

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """Rows sorted by expert in, rows sorted by expert out."""
        weight, ends, device = self.weight.mT, self.segments.ends, x.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            x, weight = x.to(dtype), weight.to(dtype)
        if ends is None:
            y = torch.bmm(x.view(weight.shape[0], -1, x.shape[-1]), weight)
            y = y if self.bias is None else y + self.bias.unsqueeze(1).to(y.dtype)
            return y.flatten(0, 1)
        y = grouped_product(x, weight, ends)
        if self.bias is not None:
            rows = torch.diff(ends, prepend=ends.new_zeros(1))
            y = y + self.bias.repeat_interleave(rows, dim=0, output_size=x.shape[0]).to(y.dtype)
        return y


class GroupedResidualLinear(GroupedLinear, ResidualLinear):
    """A grouped product whose output is added to the residual stream."""


def grouped_product(x: Float[Tensor, "N I"], weight: Float[Tensor, "E I O"], ends: Tensor) -> Float[Tensor, "N O"]:
    """Each segment of rows times its own matrix, in one kernel where the type and the sizes allow it."""
    wide = 16 // x.element_size()
    aligned = x.device.type == "cpu" or (x.shape[-1] % wide == 0 and weight.shape[-1] % wide == 0)
    if aligned and x.dtype in (torch.float32, torch.bfloat16):
        return F.grouped_mm(x, weight, offs=ends)
    starts = [0, *ends.tolist()]
    return torch.cat([x[a:b] @ w for a, b, w in zip(starts, starts[1:], weight, strict=False)])


class Experts(nn.Module):
    """E experts of the same kind, run in one call.

    Args:
        dims: Sizes of one expert.
        n_experts: Number E of experts.
        expert: Makes one expert.

    Raises:
        SizeError: The expert has weights outside of ``Linear`` products.
    """

    def __init__(self, dims: Dims, n_experts: int, expert: Callable[[Dims], FeedForward]) -> None:
        super().__init__()
        self.segments = Segments()
        with torch.device("meta"):
            template = expert(dims)
        group(template, n_experts, self.segments)
        outside = [name for name, p in (*template.named_parameters(), *template.named_buffers()) if p.is_meta]
        if outside and not torch.empty(0).is_meta:
            raise SizeError(
                "feed_forward.expert",
                f"{type(template).__name__} has weights outside of its products ({outside[0]}) and cannot be grouped; "
                "valid: feed-forwards made of Linear and activations (MLP, SwiGLU, GEGLU, ...)",
            )
        self.each = template

    def forward(self, x: Float[Tensor, "N D"], ends: Tensor | None, context: Context) -> Float[Tensor, "N D"]:
        """Rows sorted by expert; ``ends`` as in ``Segments``."""
        self.segments.ends = ends
        try:
            y: Tensor = self.each(x, context)[0]
        finally:
            self.segments.ends = None
        return y


def group(module: nn.Module, n_experts: int, segments: Segments) -> None:
    """Replaces every ``Linear`` inside of ``module`` by a grouped one, in place."""
    for name, child in module.named_children():
        if isinstance(child, Linear):
            kind = GroupedResidualLinear if isinstance(child, ResidualLinear) else GroupedLinear
            setattr(module, name, kind(child, n_experts, segments))
        else:
            group(child, n_experts, segments)
