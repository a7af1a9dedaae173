import pytest

from .small import build


@pytest.fixture
def network():
    """A network with rotary positions."""
    return build()
