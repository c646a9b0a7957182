"""An empty arena for each test, keys and a token for all of a module."""

from collections.abc import Iterator

import pytest

from engine.shared import Shared
from tests.egress.role import Server
from tests.ingress.stand import Stand, arena
from tests.system.servers import Issuer


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena() as made:
        yield made


@pytest.fixture
def stand(shared: Shared) -> Stand:
    return Stand(shared)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def token(issuer: Issuer) -> str:
    return issuer.token("acme", user="trader")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server().start()
    yield made
    made.stop()
