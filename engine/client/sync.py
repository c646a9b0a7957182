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


class _Threaded:
    """What both have: `inner`, and from `open` to `close` the thread that runs it."""

    def __init__(self, inner: producer.Producer | reader.Reader, name: str) -> None:
        self._inner = inner
        self._name = name
        self._loop: _Loop | None = None

    def open(self) -> None:
        self._loop = _Loop(self._name)
        try:
            self._loop.call(self._inner.open())
        except BaseException:
            self._loop.stop()
            raise

    @property
    def _running(self) -> _Loop:
        assert self._loop is not None, "open comes before this"
        return self._loop

    def _end(self, work: Coroutine[Any, Any, None]) -> None:
        """The last call; the thread ends with it whatever it raises."""
        loop = self._running
        try:
            loop.call(work)
        finally:
            loop.stop()
            self._loop = None


class Producer(_Threaded):
    """As `engine.client.Producer`, with its parameters; callbacks run in its thread."""

    def __init__(self, **options: Any) -> None:
        self.inner = producer.Producer(**options)
        super().__init__(self.inner, "tickpath-producer")

    def send(self, vectors: Iterable[FeatureVector]) -> str:
        return self._running.call(self.inner.send(vectors))

    def flush(self, timeout_s: float = 10.0) -> None:
        self._running.call(self.inner.flush(timeout_s))

    def close(self, timeout_s: float = 10.0) -> None:
        self._end(self.inner.close(timeout_s))

    def __enter__(self) -> "Producer":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(self.inner.__aexit__(kind, error, trace))


class Reader(_Threaded):
    """As `engine.client.Reader`, with its parameters; `on_event` runs in its thread."""

    def __init__(self, **options: Any) -> None:
        self.inner = reader.Reader(**options)
        super().__init__(self.inner, "tickpath-reader")

    def resume(self, position: dict[str, Any]) -> None:
        self.inner.resume(position)

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
        self._end(self.inner.close())

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
