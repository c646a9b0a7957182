"""An arena with model versions for each test, and a real sequencer that inputs enter through."""

from collections.abc import Iterator

import pytest

from engine.shared import Shared
from tests.egress.stand import add_versions
from tests.ingress.stand import Stand, arena


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena() as made:
        add_versions(made)
        yield made


@pytest.fixture
def stand(shared: Shared) -> Stand:
    return Stand(shared)
