"""Open-loop pacing: due times follow from start and rate; heartbeats each second and at the end."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import pytest

from engine.client.pacing import Sent, send_paced
from engine.client.sender import Message, Sender
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector


class Recorder:
    """A bus that notes when it was handed each message, and may be slow."""

    where = "recorder"

    def __init__(self, hold: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.sent: list[tuple[int, MLProcessingEnvelope]] = []
        self._hold = hold

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, message: Message) -> None:
        self.sent.append((time.monotonic_ns(), MLProcessingEnvelope.FromString(message.body)))
        if self._hold is not None:
            await self._hold(len(self.sent))

    def of(self, message_type: str) -> list[tuple[int, MLProcessingEnvelope]]:
        return [each for each in self.sent if each[1].message_type == message_type]


def sender() -> Sender:
    return Sender("acme", "ann", "fe-0", "t.o.k")


def some(count: int) -> list[FeatureVector]:
    return [FeatureVector(symbol="EURUSD", timestamp_ns=number) for number in range(count)]


def run(link: Recorder, count: int, **options: object) -> Sent:
    return asyncio.run(send_paced(link, sender(), iter(some(count)), **options))  # type: ignore[arg-type]


def test_no_message_leaves_before_it_is_due() -> None:
    link = Recorder()
    start_ns = time.monotonic_ns()
    sent = run(link, 100, rate=400.0, batch=2)
    gaps_ns = [
        at - start_ns - round(number * 2 * 1e9 / 400) for number, (at, _) in enumerate(link.of("feature_vectors"))
    ]
    assert min(gaps_ns) >= 0
    assert (sent.vectors, sent.messages, sent.heartbeats) == (100, 50, 1)
    assert sent.bytes == sum(envelope.ByteSize() for _, envelope in link.sent)


def test_a_bus_that_stalls_makes_messages_late_and_the_end_no_later() -> None:
    async def stall(number: int) -> None:
        if number == 10:
            going_on = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.2, going_on.set_result, None)
            await going_on

    link = Recorder(stall)
    sent = run(link, 200, rate=400.0)
    at = [each for each, _ in link.of("feature_vectors")]
    stalled = [b - a for a, b in itertools.pairwise(at)]
    # What became due during the stall goes out at once: most of 80 messages within a few milliseconds.
    assert max(stalled) >= 200_000_000
    assert sent.late >= 70
    assert sent.late_ms_max >= 190
    assert at[-1] - at[0] < 1_000_000_000  # half a second's worth; the stall is not added to it


def test_heartbeats_go_on_while_nothing_is_due_and_one_ends_it() -> None:
    link = Recorder()
    sent = run(link, 3, rate=0.9)  # due at 0, 1.1 and 2.2 s
    kinds = [(envelope.message_type, envelope.sequence) for _, envelope in link.sent]
    assert kinds == [
        ("feature_vectors", 1),
        ("heartbeat", 2),
        ("feature_vectors", 2),
        ("heartbeat", 3),
        ("feature_vectors", 3),
        ("heartbeat", 4),
    ]
    assert sent.heartbeats == 3


def test_asked_to_stop_it_ends_with_a_heartbeat() -> None:
    link = Recorder()
    began = time.monotonic()
    sent = run(link, 1000, rate=0.01, stop=lambda: len(link.sent) > 0)
    assert time.monotonic() - began < 5
    assert [envelope.message_type for _, envelope in link.sent] == ["feature_vectors", "heartbeat"]
    assert (sent.vectors, sent.summary()["messages"]) == (1, 1)


def test_a_renewed_token_is_taken_at_a_heartbeat() -> None:
    link = Recorder()
    run(link, 2, rate=0.9, renew=lambda: "new")
    assert [envelope.auth_token.jwt for _, envelope in link.sent] == ["t.o.k", "new", "new", "new"]


@pytest.mark.parametrize(("count", "batch", "sizes"), [(0, 3, []), (7, 3, [3, 3, 1]), (3, 3, [3])])
def test_the_last_message_carries_what_is_left(count: int, batch: int, sizes: list[int]) -> None:
    link = Recorder()
    assert run(link, count, rate=1e6, batch=batch).vectors == count
    assert len(link.of("feature_vectors")) == len(sizes)
