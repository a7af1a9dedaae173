"""A stranger's ``config.json``: every value is read by its type, and what is missing or odd is said by its key."""

from collections.abc import Mapping
from typing import Any

from lit_transformer.errors import UserError

_NONE = object()
LARGEST = 1 << 40
"""No size in a configuration is larger."""


class Config:
    """Typed reading of the keys and values of a configuration.

    Args:
        values: What the file holds.
        where: What errors call it.
        weights: Names of the weights in the file, for what a configuration leaves open; left out: not known.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "config.json", weights: frozenset[str] | None = None):
        self.values = values
        self.where = where
        self.weights = weights

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def has_weight(self, name: str, otherwise: bool = False) -> bool:
        """Whether the file holds a weight; ``otherwise`` where the weights are not known."""
        return otherwise if self.weights is None else name in self.weights

    def fault(self, key: str, problem: str) -> UserError:
        """An error about one key."""
        return UserError(f"{self.where}: {key} {problem}")

    def _value(self, names: tuple[str, ...], default: Any) -> Any:
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        if default is _NONE:
            raise self.fault(names[0], "is missing")
        return default

    def size(self, *names: str, default: Any = _NONE) -> Any:
        """A whole number of at least 1, under the first of the names that there is."""
        value = self._value(names, default)
        if value is default:
            return value
        if isinstance(value, float) and value == int(value):
            value = int(value)
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise self.fault(names[0], f"is {_short(value)}, expected a whole number of at least 1")
        return value

    def count(self, *names: str, default: Any = _NONE) -> int:
        """A whole number of at least 0."""
        value = self._value(names, default)
        if type(value) is not int or not 0 <= value <= LARGEST:
            raise self.fault(names[0], f"is {_short(value)}, expected a whole number of at least 0")
        return value

    def number(self, *names: str, default: Any = _NONE) -> Any:
        """A finite number."""
        value = self._value(names, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise self.fault(names[0], f"is {_short(value)}, expected a number")
        return float(value)

    def flag(self, *names: str, default: Any = _NONE) -> bool:
        """True or false."""
        value = self._value(names, default)
        if not isinstance(value, bool):
            raise self.fault(names[0], f"is {_short(value)}, expected true or false")
        return value

    def text(self, *names: str, default: Any = _NONE) -> str:
        """A text."""
        value = self._value(names, default)
        if not isinstance(value, str):
            raise self.fault(names[0], f"is {_short(value)}, expected text")
        return value

    def texts(self, name: str, length: int) -> list[str] | None:
        """A list of texts of a known length; None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length or not all(isinstance(each, str) for each in value):
            raise self.fault(name, f"is {_short(value)}, expected a list of {length} names")
        return value

    def part(self, *names: str) -> "Config | None":
        """Keys and values under a key; None where there is none."""
        value = self._value(names, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fault(names[0], f"is {_short(value)}, expected keys and values")
        return Config(value, f"{self.where}: {names[0]}", self.weights)

    def token(self, name: str) -> int | None:
        """The id of a token; the first one of a list."""
        value = self.values.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if value is None or (type(value) is int and 0 <= value <= LARGEST):
            return value
        raise self.fault(name, f"is {_short(value)}, expected the id of a token")

    def refuse(self, key: str, *harmless: Any) -> None:
        """Refuses a setting that no network of ours has.

        Raises:
            UserError: The key is there, and is not one of these values (None never is any).
        """
        value = self.values.get(key)
        if value is not None and value not in harmless:
            expected = f"; only {_short(harmless[0])} is supported" if harmless else ""
            raise self.fault(key, f"is {_short(value)}, which no network of this program has{expected}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
