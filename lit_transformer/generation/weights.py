"""How weights are held and multiplied while decoding, where each product has few rows and waits for memory."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_transformer.errors import EnvironmentFault

FEW_ROWS = 16
"""Up to so many rows, the product with int8 weights reads the weights and little else; beyond, arithmetic counts."""


class Product(nn.Module):
    """Base of the held weights: ``x @ weight.T + bias``, no gradients.

    Args:
        bias: (N) or none.
    """

    def __init__(self, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., N)."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """(N, D), as the product sees it."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes that are read for a product."""
        raise NotImplementedError


class Weights:
    """Base of the ways to hold weights, and itself the exact one: float32, in the layout that is read fastest.

    Measured on a CPU with AVX2: at one row the transposed weight takes 0.7 of ``F.linear``'s time, at 2 to 32 rows
    oneDNN's own layout 0.6 to 0.9. It is a second copy of the weights, which takes about as long as ten tokens.
    """

    worth_from = 24
    """Least number of steps that repays the copying."""

    def hold(self, weight: Tensor, bias: Tensor | None, rows: int) -> Product:
        """A (N, D) weight, held for products of about ``rows`` rows."""
        if rows == 1 or not has_packed_products():
            return Transposed(weight, bias)
        return Packed(weight, bias)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Transposed(Product):
    """Held column by column.

    Args:
        weight: (N, D).
        bias: (N) or none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(bias)
        self.columns = weight.detach().t().contiguous().t()

    def forward(self, x: Tensor) -> Tensor:
        """See the base class."""
        return F.linear(x, self.columns, self.bias)

    @property
    def weight(self) -> Tensor:
        """See the base class."""
        return self.columns

    @property
    def nbytes(self) -> int:
        """See the base class."""
        return self.columns.nbytes


class Packed(Product):
    """Held in oneDNN's own layout.

    Args:
        weight: (N, D), which is kept beside it: the layout cannot be read back.
        bias: (N) or none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(bias)
        self._original = weight.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self._original, None)

    def forward(self, x: Tensor) -> Tensor:
        """See the base class."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y

    @property
    def weight(self) -> Tensor:
        """See the base class."""
        return self._original

    @property
    def nbytes(self) -> int:
        """See the base class."""
        return self._original.nbytes


class BFloat16(Weights):
    """Weights rounded to bfloat16, products in it: half the memory, but slow in batches on a CPU without such units."""

    worth_from = 0

    def hold(self, weight: Tensor, bias: Tensor | None, rows: int) -> Product:
        """See the base class."""
        return Rounded(weight, bias)


class Rounded(Product):
    """Held in bfloat16.

    Args:
        weight: (N, D).
        bias: (N) or none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(None if bias is None else bias.bfloat16())
        self.rounded = weight.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """See the base class."""
        return F.linear(x.bfloat16(), self.rounded, self.bias).to(x.dtype)

    @property
    def weight(self) -> Tensor:
        """See the base class."""
        return self.rounded.float()

    @property
    def nbytes(self) -> int:
        """See the base class."""
        return self.rounded.nbytes


class Float16(Weights):
    """Weights rounded to float16, products in float32 (FBGEMM): half of the memory, the fastest on x86 CPUs."""

    worth_from = 0

    def hold(self, weight: Tensor, bias: Tensor | None, rows: int) -> Product:
        """See the base class.

        Raises:
            EnvironmentFault: This PyTorch has no such product.
        """
        if "fbgemm" not in torch.backends.quantized.supported_engines or weight.device.type != "cpu":
            raise EnvironmentFault("weights: Float16 needs a CPU and a PyTorch with FBGEMM; use Weights or BFloat16")
        return Halved(weight, bias)


class Halved(Product):
    """Held in float16, packed by FBGEMM.

    Args:
        weight: (N, D).
        bias: (N) or none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(None)
        # Values that float16 does not reach are cut, as one infinite weight would be the end of every text.
        largest = torch.finfo(torch.float16).max
        plain = weight.detach().float().clamp(-largest, largest)
        self.packed: Any = torch.ops.quantized.linear_prepack_fp16(plain, None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """See the base class."""
        y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return y

    @property
    def weight(self) -> Tensor:
        """See the base class."""
        weight: Tensor = torch.ops.quantized.linear_unpack_fp16(self.packed)[0].float()
        return weight

    @property
    def nbytes(self) -> int:
        """See the base class."""
        return self.weight.nbytes // 2


class Int8(Weights):
    """Weights as whole numbers from -127 to 127 and a scale for each output, activations in bfloat16 (weight-only
    quantisation to the nearest): a quarter of the memory. Products of many rows are taken in float32.
    """  # fmt: skip

    worth_from = 0

    def hold(self, weight: Tensor, bias: Tensor | None, rows: int) -> Product:
        """See the base class."""
        return Quantised(weight, bias)


class Quantised(Product):
    """Held in int8.

    Args:
        weight: (N, D).
        bias: (N) or none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(bias)
        weight = weight.detach().float()
        scales = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.numbers = (weight / scales.unsqueeze(1)).round().to(torch.int8)
        self.scales = scales
        self._low = scales.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """See the base class."""
        rows = x.numel() // x.shape[-1]
        if rows > FEW_ROWS:
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        y = torch._weight_int8pack_mm(x.bfloat16().view(rows, -1), self.numbers, self._low)
        y = y.to(x.dtype).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Tensor:
        """See the base class."""
        return self.numbers.float() * self.scales.unsqueeze(1)

    @property
    def nbytes(self) -> int:
        """See the base class."""
        return self.numbers.nbytes + self.scales.nbytes


@cache
def has_packed_products() -> bool:
    """Whether this PyTorch has oneDNN's products of weights in its own layout."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
