"""An arena for each test, and a control process's work run in a thread of the test."""

import http.client
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from engine.child import Child
from engine.control import main
from engine.settings import Http, Settings
from engine.shared import CONTROL, Shared
from tests.control import engines


class Log(logging.Handler):
    """The lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def until(condition, what: str, seconds: float = 10.0):
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.002)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@contextmanager
def serving(shared: Shared, settings: Settings) -> Iterator[tuple[str, int, Log]]:
    """A control role at work: (host, port, log)."""
    child = Child("control", CONTROL, settings, shared, os.getppid())
    log = Log()
    child.log = logging.Logger("control")
    child.log.addHandler(log)
    child.row[0]["order"] = 0
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(main.run(child)))
    thread.start()
    try:
        line = until(lambda: next((line for line in log.lines if line.startswith("listening on ")), None), "listening")
        host, _, port = line.removeprefix("listening on http://").rpartition(":")
        yield host.strip("[]"), int(port), log
    finally:
        child.row[0]["order"] = 1
        thread.join(10)
        assert results == [0]


def ask(host: str, port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


@pytest.fixture
def settings() -> Settings:
    return replace(engines.SETTINGS, http=Http(listen="127.0.0.1:0"))


@pytest.fixture
def shared(settings: Settings) -> Iterator[Shared]:
    shared = engines.make_shared(settings)
    engines.make_healthy(shared)
    yield shared
    engines.close(shared)
