"""An empty arena for each test."""

from collections.abc import Iterator

import pytest

from engine.shared import Shared
from tests.ingress.stand import Stand, arena


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena() as made:
        yield made


@pytest.fixture
def stand(shared: Shared) -> Stand:
    return Stand(shared)
