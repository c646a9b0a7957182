"""Producer and Reader for programs without asyncio: the same, in a thread with its loop.

Owns one thread each. Runs in a producer's or a reader's process. What must stay true: every call returns what the
asyncio one returns, or raises what it raises; the thread ends with `close`.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from engine.client import producer, reader
from engine.client.answers import Answer
from engine.contract.ml.feature_vectors_pb2 import FeatureVector

Value = TypeVar("Value")


class _Loop:
    """A loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Producer:
    """As `engine.client.Producer`, with its parameters; callbacks run in its thread."""

    def __init__(self, **options: Any) -> None:
        self.inner = producer.Producer(**options)
        self._loop: _Loop | None = None

    def open(self) -> None:
        self._loop = _Loop("tickpath-producer")
        try:
            self._loop.call(self.inner.open())
        except BaseException:
            self._loop.stop()
            raise

    def send(self, vectors: Iterable[FeatureVector]) -> str:
        return self._running.call(self.inner.send(vectors))

    def flush(self, timeout_s: float = 10.0) -> None:
        self._running.call(self.inner.flush(timeout_s))

    def close(self, timeout_s: float = 10.0) -> None:
        loop = self._running
        try:
            loop.call(self.inner.close(timeout_s))
        finally:
            loop.stop()
            self._loop = None

    @property
    def _running(self) -> _Loop:
        assert self._loop is not None, "open comes before this"
        return self._loop

    def __enter__(self) -> "Producer":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = self._running
        try:
            loop.call(self.inner.__aexit__(kind, error, trace))
        finally:
            loop.stop()
            self._loop = None


class Reader:
    """As `engine.client.Reader`, with its parameters; `on_event` runs in its thread."""

    def __init__(self, **options: Any) -> None:
        self.inner = reader.Reader(**options)
        self._loop: _Loop | None = None

    def resume(self, position: dict[str, Any]) -> None:
        self.inner.resume(position)

    def open(self) -> None:
        self._loop = _Loop("tickpath-reader")
        try:
            self._loop.call(self.inner.open())
        except BaseException:
            self._loop.stop()
            raise

    def receive(self, timeout_s: float | None = None) -> Answer | None:
        """The next answer; None: none came within the time."""
        return self._running.call(self.inner.receive(timeout_s))

    def position(self) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            return self.inner.position()

        return self._running.call(ask())

    def commit(self) -> None:
        self._running.call(self.inner.commit())

    def close(self) -> None:
        loop = self._running
        try:
            loop.call(self.inner.close())
        finally:
            loop.stop()
            self._loop = None

    @property
    def _running(self) -> _Loop:
        assert self._loop is not None, "open comes before this"
        return self._loop

    def __iter__(self) -> Iterator[Answer]:
        while (answer := self.receive()) is not None:
            yield answer

    def __enter__(self) -> "Reader":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
