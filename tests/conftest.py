"""What every test starts from, whatever ran before it in the same process."""

import os
from collections.abc import Iterator

# Before torch is imported: tests fork, and a forked process would wait for threads that only its parent has.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """``seed_everything`` leaves its seed in the environment, from where strategies seed their ranks again."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
