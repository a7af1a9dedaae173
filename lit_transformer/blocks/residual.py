"""In which order norms, sublayers and additions stand."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks.context import Context
from lit_transformer.blocks.linear import Linear
from lit_transformer.blocks.norms import NoNorm, Norm, NormFactory
from lit_transformer.dims import Dims, SizeError

Sublayer = Callable[[Tensor], tuple[Tensor, Any]]
"""Attention or feed-forward with all but its input filled in; what it returns beside (B, T, D) is handed through."""


class Residual(nn.Module):
    """Base of the residual orders: carries the stream (B, T, D) past the sublayers of one layer.

    Args:
        dims: Sizes.
        norm: Makes one norm.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
    """

    def __init__(self, dims: Dims, norm: NormFactory, sublayers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm(dims) for _ in range(sublayers))
        self.dropout = dropout

    def forward(
        self, x: Tensor, sublayers: Sequence[Sublayer], context: Context | None = None
    ) -> tuple[Tensor, list[Any]]:
        """The stream after all sublayers, and what each returned beside its output."""
        extras = []
        for i, sublayer in enumerate(sublayers):
            x, extra = self.step(x, i, sublayer, context)
            extras.append(extra)
        return x, extras

    def step(self, x: Tensor, i: int, sublayer: Sublayer, context: Context | None) -> tuple[Tensor, Any]:
        """Sublayer number ``i``: what most orders differ in."""
        raise NotImplementedError

    def drop(self, x: Tensor) -> Tensor:
        """Dropout of a sublayer's output."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def set_gains(self, parts: Sequence[nn.Module]) -> None:
        """Tells the products of the sublayers how large they start, where the order has a rule for it."""

    @classmethod
    def final_norm(cls, dims: Dims, norm: NormFactory) -> Norm:
        """What stands behind the last layer."""
        return NoNorm(dims)


class PreNorm(Residual):
    """``x + f(norm(x))``: the stream itself is never normalised, so depth trains without warm-up (GPT-2, Llama)."""

    def step(self, x: Tensor, i: int, sublayer: Sublayer, context: Context | None) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(self.norms[i](x, context))
        return x + self.drop(y), extra

    @classmethod
    def final_norm(cls, dims: Dims, norm: NormFactory) -> Norm:
        """One more norm: the head needs a normalised stream."""
        return norm(dims)


class PostNorm(Residual):
    """``norm(x + f(x))``: the original order (Vaswani et al., 2017; BERT)."""

    def step(self, x: Tensor, i: int, sublayer: Sublayer, context: Context | None) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(x)
        z: Tensor = self.norms[i](x + self.drop(y), context)
        return z, extra


class Sandwich(PreNorm):
    """``x + norm(f(norm(x)))``: what is added is normalised too (Ding et al., 2021, arXiv:2105.13290; Gemma 2).

    Args:
        dims: Sizes.
        norm: Makes one norm.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
    """

    def __init__(self, dims: Dims, norm: NormFactory, sublayers: int = 2, dropout: float = 0.0) -> None:
        super().__init__(dims, norm, sublayers, dropout)
        self.output_norms = nn.ModuleList(norm(dims) for _ in range(sublayers))

    def step(self, x: Tensor, i: int, sublayer: Sublayer, context: Context | None) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(self.norms[i](x, context))
        return x + self.drop(self.output_norms[i](y, context)), extra


class Parallel(PreNorm):
    """``x + f(norm(x)) + g(norm(x))``: the sublayers read the same, behind one norm (GPT-J; PaLM, arXiv:2204.02311).

    Args:
        dims: Sizes.
        norm: Makes the norm.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
    """

    def __init__(self, dims: Dims, norm: NormFactory, sublayers: int = 2, dropout: float = 0.0) -> None:
        super().__init__(dims, norm, 1, dropout)

    def forward(
        self, x: Tensor, sublayers: Sequence[Sublayer], context: Context | None = None
    ) -> tuple[Tensor, list[Any]]:
        """See the class."""
        h = self.norms[0](x, context)
        extras = []
        for sublayer in sublayers:
            y, extra = sublayer(h)
            x = x + self.drop(y)
            extras.append(extra)
        return x, extras


class ParallelNorms(PreNorm):
    """``x + f(norm(x)) + g(norm'(x))``: the sublayers read the same, each behind a norm of its own (GPT-NeoX, Pythia).

    Black et al., 2022, arXiv:2204.06745.
    """

    def forward(
        self, x: Tensor, sublayers: Sequence[Sublayer], context: Context | None = None
    ) -> tuple[Tensor, list[Any]]:
        """See the class."""
        y, extras = x, []
        for norm, sublayer in zip(self.norms, sublayers, strict=True):
            z, extra = sublayer(norm(x, context))
            y = y + self.drop(z)
            extras.append(extra)
        return y, extras


class OpenStart(PreNorm):
    """PreNorm without the first norm: of the first layer behind an embedding that is normalised (ModernBERT).

    Warner et al., 2024, arXiv:2412.13663.

    Args:
        dims: Sizes.
        norm: Makes one norm.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
    """

    def __init__(self, dims: Dims, norm: NormFactory, sublayers: int = 2, dropout: float = 0.0) -> None:
        super().__init__(dims, norm, sublayers, dropout)
        self.norms[0] = NoNorm(dims)


class DeepNorm(Residual):
    """``norm(a x + f(x))`` with smaller weights at the start: post-norm for 1,000 layers (Wang et al., 2022).

    For the N layers of a decoder-only or encoder-only network, a = (2N)^(1/4) and values, outputs and feed-forwards
    start with a gain of b = (8N)^(-1/4). A layer with cross-attention (three sublayers) takes the decoder's numbers,
    a = (3N)^(1/4) and b = (12N)^(-1/4). Those of the encoder beside a decoder depend on both depths, N and M, and must
    be given: a = 0.81 (N^4 M)^(1/16) and b = 0.87 (N^4 M)^(-1/16) (arXiv:2203.00555, figure 2).

    Args:
        dims: Sizes; ``n_layers`` is N.
        norm: Makes one norm.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
        alpha: Weight of the stream.
        beta: Gain of the weights' start; it takes the place of a scheme's own scaling by depth.
    """

    def __init__(
        self,
        dims: Dims,
        norm: NormFactory,
        sublayers: int = 2,
        dropout: float = 0.0,
        alpha: float | None = None,
        beta: float | None = None,
    ) -> None:
        super().__init__(dims, norm, sublayers, dropout)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if value is not None and value <= 0:
                raise SizeError(f"residual.{name}", f"is {value}, must be above 0 (or left out)")
        width = 2 if sublayers < 3 else 3
        self.alpha = (width * dims.n_layers) ** 0.25 if alpha is None else alpha
        self.beta = (4 * width * dims.n_layers) ** -0.25 if beta is None else beta

    def step(self, x: Tensor, i: int, sublayer: Sublayer, context: Context | None) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(x)
        z: Tensor = self.norms[i](self.alpha * x + self.drop(y), context)
        return z, extra

    def set_gains(self, parts: Sequence[nn.Module]) -> None:
        """All products but those that only make scores start smaller."""
        for part in parts:
            scores = getattr(part, "score_products", ())
            for name, module in part.named_modules():
                if isinstance(module, Linear) and name not in scores:
                    module.gain = self.beta


class Gain(nn.Module):
    """Scales what a sublayer adds, by one learned number or one a feature.

    Args:
        size: How many numbers.
        start: Where they start.
    """

    def __init__(self, size: int, start: float) -> None:
        super().__init__()
        self.start = start
        self.weight = nn.Parameter(torch.full((size,), start))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return (x * self.weight).to(x.dtype)

    def initialise_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> None:
        """Starts where it was told to."""
        nn.init.constant_(parameter, self.start)


class ReZero(Residual):
    """``x + a f(x)``, a = 0 at the start (Bachlechner et al., 2020, arXiv:2003.04887).

    No norm stands anywhere, whatever ``norm`` says.

    Args:
        dims: Sizes.
        norm: Not used.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
    """

    def __init__(self, dims: Dims, norm: NormFactory, sublayers: int = 2, dropout: float = 0.0) -> None:
        super().__init__(dims, NoNorm, sublayers, dropout)
        self.gains = nn.ModuleList(Gain(1, 0.0) for _ in range(sublayers))

    def step(self, x: Tensor, i: int, sublayer: Sublayer, context: Context | None) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(x)
        return x + self.gains[i](self.drop(y)), extra


class LayerScale(PreNorm):
    """``x + g * f(norm(x))`` with a small learned scale for each feature (Touvron et al., 2021, arXiv:2103.17239).

    Args:
        dims: Sizes.
        norm: Makes one norm.
        sublayers: How many sublayers there are.
        dropout: Share of each sublayer's output that is dropped in training.
        start: Where the scales start: 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 beyond (the paper's).
    """

    def __init__(
        self, dims: Dims, norm: NormFactory, sublayers: int = 2, dropout: float = 0.0, start: float = 0.1
    ) -> None:
        super().__init__(dims, norm, sublayers, dropout)
        self.gains = nn.ModuleList(Gain(dims.d_model, start) for _ in range(sublayers))

    def step(self, x: Tensor, i: int, sublayer: Sublayer, context: Context | None) -> tuple[Tensor, Any]:
        """See the class."""
        y, extra = sublayer(self.norms[i](x, context))
        return x + self.gains[i](self.drop(y)), extra
