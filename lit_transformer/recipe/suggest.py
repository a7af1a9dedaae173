"""Did you mean ...: the nearest valid names to a misspelt one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The candidates that look most like ``name``, the best first; upper and lower case count as the same."""
    by_lower: dict[str, str] = {}
    for candidate in candidates:
        by_lower.setdefault(candidate.lower(), candidate)
    found = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.6)
    # 'heads' for 'n_heads', 'dims.n_heads' for 'n_heads': one is part of the other, which the ratio may miss.
    parts = [c for c in by_lower if len(name) > 2 and (c.endswith("." + name.lower()) or name.lower() in c.split("_"))]
    return [by_lower[c] for c in dict.fromkeys(found + sorted(parts))][:count]


def hint(name: str, candidates: Iterable[str], known: str = "valid") -> str:
    """``; did you mean x?``, or ``; valid: a, b, c`` where nothing is near and the list is short, or nothing."""
    options = sorted(set(candidates))
    close = nearest(name, options)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    if options and len(options) <= 16:
        return f"; {known}: {', '.join(options)}"
    return ""
