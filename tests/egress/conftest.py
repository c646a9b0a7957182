"""Arenas with model versions, inputs that enter through a real sequencer, servers and issuers for a test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.settings import Settings
from engine.shared import Shared
from tests.egress.role import Server
from tests.egress.stand import add_versions
from tests.ingress.stand import Stand, arena
from tests.system.servers import Issuer


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena() as made:
        add_versions(made)
        yield made


@pytest.fixture
def stand(shared: Shared) -> Stand:
    return Stand(shared)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server().start()
    yield made
    made.stop()


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def shared_for() -> Iterator[Callable[[Settings], Shared]]:
    """Makes an arena for settings."""
    with ExitStack() as stack:

        def make(settings: Settings) -> Shared:
            made = stack.enter_context(arena(settings))
            add_versions(made)
            return made

        yield make
