"""What a parser made of a recipe, as plain data again: to write, to compare and to log."""

from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import yaml
from jsonargparse import Namespace


def to_plain(value: Any) -> Any:
    """A parsed configuration as plain data; defaults that are no data are left out, as they come back by themselves.

    jsonargparse's own ``dump`` turns a list of factories into text that nothing reads.
    """
    if isinstance(value, (Namespace, dict)):
        items = vars(value).items() if isinstance(value, Namespace) else value.items()
        plain = {str(key): to_plain(item) for key, item in items if key != "__path__"}
        return {key: item for key, item in plain.items() if item is not _NO_DATA}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (PurePath, timedelta)):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return to_plain(asdict(value))
    return _NO_DATA


_NO_DATA = object()


def to_yaml(data: Any) -> str:
    """Plain data as YAML, in its own order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def flat(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Plain data as key paths and single values; class paths lose their ``class_path`` and ``init_args``."""
    if isinstance(data, dict):
        for name, value in data.items():
            skipped = name in ("class_path", "init_args") or not name
            yield from flat(value, key if skipped else f"{key}.{name}" if key else name)
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from flat(value, f"{key}[{i}]")
    elif isinstance(data, (bool, int, float, str)):
        yield key, data


def differences(old: Path, new: dict[str, Any]) -> list[str]:
    """What a resumed run changes, a line each; the recipe and the command line win."""
    try:
        before = dict(flat(yaml.safe_load(old.read_text(encoding="utf-8"))))
    except (OSError, yaml.YAMLError, ValueError):
        return []
    after = dict(flat(new))
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            old_value, new_value = before.get(key, "nothing"), after.get(key, "nothing")
            lines.append(f"changed since the run began: {key}: {old_value} -> {new_value}")
    return lines


def specs(node: Any) -> list[dict[str, Any]]:
    """The parts that a key names, one or several."""
    return [spec for spec in (node if isinstance(node, list) else [node]) if isinstance(spec, dict)]
