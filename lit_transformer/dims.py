"""The sizes of a Transformer, said once and handed to every part."""

from dataclasses import dataclass, fields, replace
from typing import Self

from lit_transformer.errors import UserError


class SizeError(UserError):
    """Sizes that do not fit together. ``key`` is the field of ``Dims`` (or of a part) to edit."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


@dataclass(frozen=True)
class Dims:
    """Sizes shared by the parts of one stack.

    Args:
        d_model: Width D of the residual stream.
        n_layers: Number of layers of the stack.
        n_heads: Number H of query heads.
        n_kv_heads: Number G of key/value heads: H is multi-head attention, 1 multi-query, between grouped-query.
            Left out: H.
        head_dim: Size K of one head. Left out: ``d_model / n_heads``.
        d_ff: Hidden width of the feed-forward. Left out: ``4 * d_model``.
        max_len: Longest sequence that the network is built for. Left out: what the data is cut to.
    """

    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int | None = None
    max_len: int | None = None

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "max_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SizeError(f"dims.{name}", f"is {value}, must be at least 1")
        if self.head_dim is None and self.d_model % self.n_heads:
            valid = [n for n in range(1, self.d_model + 1) if self.d_model % n == 0]
            raise SizeError(
                "dims.n_heads",
                f"{self.n_heads} does not divide d_model {self.d_model}; "
                f"valid: {', '.join(map(str, valid))} (or give dims.head_dim)",
            )
        if self.n_heads % self.kv_heads:
            valid = [n for n in range(1, self.n_heads + 1) if self.n_heads % n == 0]
            raise SizeError(
                "dims.n_kv_heads",
                f"{self.kv_heads} does not divide n_heads {self.n_heads}; valid: {', '.join(map(str, valid))}",
            )

    @property
    def memory(self) -> int | None:
        """Width of the states that a decoder's layers look at by cross-attention; None: there are none."""
        return None

    @property
    def kv_heads(self) -> int:
        """Number G of key/value heads."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_size(self) -> int:
        """Size K of one head."""
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def ff_size(self) -> int:
        """Hidden width of the feed-forward."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff

    @property
    def length(self) -> int:
        """Longest sequence; an error where nobody said it."""
        if self.max_len is None:
            raise SizeError("dims.max_len", "is needed by this part and neither the recipe nor the data says it")
        return self.max_len

    def with_max_len(self, max_len: int | None) -> Self:
        """These sizes, with ``max_len`` filled in where it was left out."""
        return self if self.max_len is not None or max_len is None else replace(self, max_len=max_len)


@dataclass(frozen=True)
class DecoderDims(Dims):
    """Sizes of a decoder that looks at an encoder's states; made by the network, not by a recipe.

    Args:
        d_model: See ``Dims``, as all but the last.
        n_layers: See ``Dims``.
        n_heads: See ``Dims``.
        n_kv_heads: See ``Dims``.
        head_dim: See ``Dims``.
        d_ff: See ``Dims``.
        max_len: See ``Dims``.
        memory_dim: Width of the encoder's states. Left out: ``d_model``.
    """

    memory_dim: int | None = None

    @classmethod
    def of(cls, dims: Dims, memory_dim: int | None = None) -> Self:
        """The decoder's sizes beside an encoder of this width."""
        return cls(**{each.name: getattr(dims, each.name) for each in fields(Dims)}, memory_dim=memory_dim)

    @property
    def memory(self) -> int | None:
        """Width of the states that cross-attention looks at."""
        return self.d_model if self.memory_dim is None else self.memory_dim
