"""Whether a forward pass is a repetition, run to get back what was not kept for the backward pass.

Values and gradients need not know; state that a forward pass moves (running statistics, counts) must move once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

_thread = local()
# The backward pass of an accelerator runs in a thread of its own, and so do the repetitions in it.


def is_recomputing() -> bool:
    """True inside of ``recomputing``."""
    return getattr(_thread, "depth", 0) > 0


@contextmanager
def recomputing() -> Iterator[None]:
    """Marks what is run inside as a repetition."""
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1
