"""What tests that train on Ray Train workers share."""

from collections.abc import Iterator

import pytest

from siamray.cluster import connected
from siamray.config import ClusterConfig


@pytest.fixture(scope="module")
def ray_of_two() -> Iterator[None]:
    """Ray with two processors for all tests of a module, as starting it takes longer than many of them."""
    with connected(ClusterConfig(workers=2), cpus=2):
        yield
