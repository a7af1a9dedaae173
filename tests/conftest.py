"""What every test starts from, whatever ran before it in the same process."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """``seed_everything`` leaves its seed in the environment, from where strategies seed their ranks again."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
