"""Small trainable changes of frozen products: LoRA and DoRA."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.blocks.latent_attention import LatentAttention
from lit_transformer.blocks.linear import Linear, ResidualLinear
from lit_transformer.blocks.products import product
from lit_transformer.checkpoints.adapters import adapted_weight
from lit_transformer.errors import UserError
from lit_transformer.networks.initialisation import generator_for


class AdaptedLinear(Linear):
    """A product ``W x`` with a change of low rank: ``W x + s B A x`` (Hu et al., 2021, arXiv:2106.09685).

    Only A and B have a gradient; B starts at zero, so that nothing changes at first. ``adapt`` makes one of a product
    that is there, whose weight keeps its name.
    """

    lora_A: nn.Parameter
    lora_B: nn.Parameter
    lora_scale: Tensor
    dropout: float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """The product and its change."""
        return product(x, self.weight, self.bias) + self.change(x)

    def change(self, x: Tensor) -> Tensor:
        """What the adapter adds."""
        x = F.dropout(x, self.dropout, self.training) if self.dropout else x
        y: Tensor = product(product(x, self.lora_A), self.lora_B)
        scaled: Tensor = y * self.lora_scale.to(y.dtype)
        return scaled


class AdaptedResidualLinear(AdaptedLinear, ResidualLinear):
    """The same for products that write into the residual stream."""


class MagnitudeLinear(AdaptedLinear):
    """LoRA decides on directions, a number a row on lengths (DoRA: Liu et al., 2024, arXiv:2402.09353)."""

    lora_magnitude: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """The product with the rows of ``W + s B A`` brought to their lengths, which get no gradient (section 4.3)."""
        with torch.no_grad():
            rows = (self.weight + self.lora_scale * (self.lora_B @ self.lora_A)).norm(dim=1)
        y: Tensor = product(x, self.weight) + self.change(x)
        y = y * (self.lora_magnitude / rows).to(y.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class MagnitudeResidualLinear(MagnitudeLinear, ResidualLinear):
    """The same for products that write into the residual stream."""


KINDS = {Linear: AdaptedLinear, ResidualLinear: AdaptedResidualLinear}
MAGNITUDE_KINDS = {Linear: MagnitudeLinear, ResidualLinear: MagnitudeResidualLinear}


def adapt(
    network: nn.Module, rank: int, alpha: float, parts: Sequence[str], dropout: float = 0.0, magnitude: bool = False
) -> list[str]:
    """Freezes a network and gives adapters to some of its products, in place.

    Args:
        network: The network.
        rank: Rank r of the changes.
        alpha: Their scale is alpha / r.
        parts: Last names of the products: query, key, value, output, gate, up, down.
        dropout: Share of an adapter's input that is dropped in training.
        magnitude: DoRA.

    Returns:
        The names of the adapted products.

    Raises:
        UserError: A name that no product has, or a product that cannot be adapted.
    """
    found = list(products(network))
    names = {name.rpartition(".")[2] for name, _ in found}
    unknown = [part for part in parts if part not in names]
    if unknown:
        raise UserError(f"LoRA.parts: no product is called {unknown[0]!r}; there are: {', '.join(sorted(names))}")
    if any(parameter.is_meta for parameter in network.parameters()):
        raise UserError("LoRA: does not go with sharded strategies; use one device or DDP")
    network.requires_grad_(False)
    adapted = []
    for name, module in found:
        if name.rpartition(".")[2] not in parts:
            continue
        weight, kinds = module.weight, MAGNITUDE_KINDS if magnitude else KINDS
        # The object stays, so that its weight keeps its name and whoever holds it sees the change.
        module.__class__ = kinds[type(module)]
        down = torch.empty(rank, weight.shape[1], dtype=torch.float32)
        bound = 1 / math.sqrt(weight.shape[1])
        down.uniform_(-bound, bound, generator=generator_for(torch.initial_seed(), f"{name}.lora_A"))
        module.lora_A = nn.Parameter(down.to(weight))
        module.lora_B = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        module.register_buffer("lora_scale", torch.tensor(alpha / rank, device=weight.device))
        if magnitude:
            module.lora_magnitude = nn.Parameter(weight.detach().norm(dim=1))
        module.dropout = dropout  # type: ignore[assignment]
        adapted.append(name)
    return adapted


def products(network: nn.Module) -> Iterator[tuple[str, Linear]]:
    """The products that can be adapted: not experts, and not those that latent attention takes apart."""
    latent = {id(m) for each in network.modules() if isinstance(each, LatentAttention) for m in (each.key, each.value)}
    for name, module in network.named_modules():
        if type(module) in KINDS and id(module) not in latent:
            yield name, module


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """Folds all adapters into the weights, in place: the network is an ordinary one again."""
    for module in network.modules():
        if isinstance(module, AdaptedLinear):
            parts = {name: getattr(module, name) for name in ("lora_A", "lora_B", "lora_scale", "lora_magnitude")
                     if hasattr(module, name)}  # fmt: skip
            module.weight.copy_(adapted_weight(module.weight, parts))
            for name in parts:
                delattr(module, name)
            plain: type[Linear] = ResidualLinear if isinstance(module, ResidualLinear) else Linear
            setattr(module, "__class__", plain)  # noqa: B010 back to what it was
    network.requires_grad_(True)
