"""Open-loop pacing: due times follow from start and rate."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import pytest

from engine.client.pacing import Sent, send_paced
from engine.contract.ml.feature_vectors_pb2 import FeatureVector


class Recorder:
    """Notes when it was handed each message, and may be slow."""

    def __init__(self, hold: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.sent: list[tuple[int, list[FeatureVector]]] = []
        self._hold = hold

    async def send(self, vectors: list[FeatureVector]) -> None:
        self.sent.append((time.monotonic_ns(), vectors))
        if self._hold is not None:
            await self._hold(len(self.sent))


def some(count: int) -> list[FeatureVector]:
    return [FeatureVector(symbol="EURUSD", timestamp_ns=number) for number in range(count)]


def run(recorder: Recorder, count: int, **options: object) -> Sent:
    return asyncio.run(send_paced(recorder.send, iter(some(count)), **options))  # type: ignore[arg-type]


def test_no_message_leaves_before_it_is_due() -> None:
    recorder = Recorder()
    start_ns = time.monotonic_ns()
    sent = run(recorder, 100, rate=400.0, batch=2)
    gaps_ns = [at - start_ns - round(number * 2 * 1e9 / 400) for number, (at, _) in enumerate(recorder.sent)]
    assert min(gaps_ns) >= 0
    assert (sent.vectors, sent.messages) == (100, 50)


def test_a_bus_that_stalls_makes_messages_late_and_the_end_no_later() -> None:
    async def stall(number: int) -> None:
        if number == 10:
            going_on = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.2, going_on.set_result, None)
            await going_on

    recorder = Recorder(stall)
    sent = run(recorder, 200, rate=400.0)
    at = [each for each, _ in recorder.sent]
    stalled = [b - a for a, b in itertools.pairwise(at)]
    # What became due during the stall goes out at once: most of 80 messages within a few milliseconds.
    assert max(stalled) >= 200_000_000
    assert sent.late >= 70
    assert sent.late_ms_max >= 190
    assert at[-1] - at[0] < 1_000_000_000  # half a second's worth; the stall is not added to it


def test_asked_to_stop_it_ends() -> None:
    recorder = Recorder()
    began = time.monotonic()
    sent = run(recorder, 1000, rate=0.01, stop=lambda: len(recorder.sent) > 0)
    assert time.monotonic() - began < 5
    assert (sent.vectors, sent.summary()["messages"]) == (1, 1)


@pytest.mark.parametrize(("count", "batch", "sizes"), [(0, 3, []), (7, 3, [3, 3, 1]), (3, 3, [3])])
def test_the_last_message_carries_what_is_left(count: int, batch: int, sizes: list[int]) -> None:
    recorder = Recorder()
    assert run(recorder, count, rate=1e6, batch=batch).vectors == count
    assert [len(vectors) for _, vectors in recorder.sent] == sizes
