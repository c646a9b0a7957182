"""Senders that move between buses, and engines that lose everything: what is on Kafka is never lost."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.system.buses import Both, on_both
from tests.system.place import Place, a_place, next_message, traffic, undisturbed, whole_again
from tests.system.servers import Issuer, until
from tests.system.test_life import assert_nothing_left
from tests.system.traffic import Stream, eventually, paced

PER_S = 150
BOTH_S = 3.0  # as long a returned sender says everything on both buses: the engine may return after it
KILLS = 10
FEATURES = "ml.v1.features"
SLOWLY = 50  # so that each record is seen by itself
AWAY = '"message":"nats is away'


@pytest.fixture(scope="module")
def place(folder: Path, issuer: Issuer) -> Iterator[Place]:
    with a_place(folder, issuer) as made:
        yield made
        pids = made.engine.children()
        assert made.engine.stop() == 0, made.engine.log()
        assert_nothing_left(made.engine, pids)


class MovingSender:
    """NATS while it is there; else Kafka, beginning with all that is not answered; at the return both for a moment."""

    def __init__(self, place: Place, both: Both) -> None:
        self.place, self.both = place, both
        self.client: nats.NATS | None = None
        self.both_until_s = 0.0
        self.moved: list[int] = []  # monotonic instants at which Kafka got its first input after a loss

    async def connect(self) -> None:
        """Once, without the client's own reconnecting: what it would keep is ours to send again."""
        self.client = await nats.connect(self.place.bus.url, allow_reconnect=False)
        self.both_until_s = time.monotonic() + BOTH_S if self.moved else 0.0

    async def send(self, stream: Stream, sequence: int, body: bytes) -> None:
        if self.client is not None and not self.client.is_connected:
            self.client = None
            self.moved.append(time.monotonic_ns())
            missing = sorted(set(stream.sent) - self.both.answered(stream))
            for each in missing:
                self.both.kafka.send(stream, each, stream.sent[each].SerializeToString())
            return
        if self.client is not None:
            await self.client.publish(stream.subject, body, headers={"Nats-Msg-Id": stream.name(sequence)})
        if self.client is None or time.monotonic() < self.both_until_s:
            self.both.kafka.send(stream, sequence, body)


def test_a_sender_that_moves_to_kafka_and_back_while_nats_is_killed_under_load_loses_and_repeats_nothing(place, chance):
    (stream,) = place.streams("moves", 1)

    async def main() -> None:
        async with on_both(place.bus.url, place.broker.bootstrap) as both:
            sender = MovingSender(place, both)
            await sender.connect()
            sending = asyncio.create_task(traffic([stream], sender.send, PER_S, 15 * PER_S))
            for number in (1, 2):
                await eventually(lambda: stream.sequence > number * 5 * PER_S + chance.randrange(50), 20, "under load")  # noqa: B023
                await asyncio.to_thread(place.bus.stop)
                await eventually(lambda: len(sender.moved) == number, 5, "it moved")  # noqa: B023
                moved_ns = sender.moved[-1]
                on_kafka = both.readers["kafka"]
                await eventually(lambda: on_kafka.answers[-1].arrived_ns > moved_ns, 5, "answers come on Kafka")  # noqa: B023
                first = next(answer for answer in on_kafka.answers if answer.arrived_ns > moved_ns)
                first_s = (first.arrived_ns - moved_ns) / 1e9
                print(f"move {number}: first answer over Kafka {first_s:.2f} s after the first input there")
                assert first_s < 1.0
                await asyncio.to_thread(place.bus.start)
                await whole_again(place)
                await sender.connect()
            await sending
            await both.all_answered([stream], 10)
            found = place.check([stream], both)
            assert found.bad() == {}
            assert found.unpredicted == 0

    asyncio.run(main())


async def kill_kafka_process(place: Place, number: int) -> float:
    """Kills it and waits until Kafka is up again: how long that took."""
    pid = place.engine.children()["kafka-3"]
    os.kill(pid, signal.SIGKILL)
    begin_s = time.monotonic()

    def back() -> bool:
        return place.engine.children().get("kafka-3") not in (None, pid) and place.whole()

    await asyncio.to_thread(until, back, 30, f"kill {number}: the kafka process is back")
    return time.monotonic() - begin_s


def test_the_kafka_process_killed_at_any_instant_loses_nothing_and_never_disturbs_nats(place, chance):
    """One company sends over both buses, one over NATS alone, one over Kafka alone."""
    streams = place.streams("kafka-killed")
    _, on_nats, on_kafka = streams

    async def main() -> None:
        async with on_both(place.bus.url, place.broker.bootstrap) as both:

            async def send(stream: Stream, sequence: int, body: bytes) -> None:
                if stream is not on_nats:
                    both.kafka.send(stream, sequence, body)
                if stream is not on_kafka:
                    await both.over_nats(stream, sequence, body)

            ending = asyncio.Event()
            away = place.engine.log().count(AWAY)

            async def until_ending() -> None:
                async for index in paced(PER_S, 10**6):
                    if ending.is_set():
                        return
                    await send(streams[index % 3], *next_message(streams[index % 3]))

            sending = asyncio.create_task(until_ending())
            took = []
            for number in range(KILLS):
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                took.append(await kill_kafka_process(place, number))
            ending.set()
            await sending
            lost = place.engine.log().count(AWAY) - away
            if lost:  # a stalled host looks like a silent server, and what NATS lost then is sent again
                await both.all_answered([each for each in streams if each is not on_nats], 15)
                for sequence in sorted(set(on_nats.sent) - both.answered(on_nats)):
                    await both.over_nats(on_nats, sequence, on_nats.sent[sequence].SerializeToString())
            await both.all_answered(streams, 15)
            there = both.readers["kafka"]
            await eventually(
                lambda: all(set(s.sent) <= set(there.answered(s)) for s in streams), 15, "Kafka has all, too"
            )
            print(f"{KILLS} kills; back after {sorted(took)[KILLS // 2]:.2f} s (median), {max(took):.2f} s (longest)")
            found = place.check(streams, both)
            assert found.bad(but=("doubled",)) == {}
            assert [name for name in found.doubled if name.startswith("nats")] == [], "only Kafka may repeat"
            assert lost or place.check([on_nats], both).late == 0

    asyncio.run(main())


def kill_everything(place: Place) -> dict[str, int]:
    """The engine, its children, NATS and the broker, as near to at once as signals go."""
    engine = place.engine
    assert engine.handle is not None
    assert place.bus.server is not None
    assert place.broker.handle is not None
    pids = {"supervisor": engine.handle.pid, **engine.children()}
    for pid in (*pids.values(), place.bus.server.pid, place.broker.handle.pid):
        os.kill(pid, signal.SIGKILL)
    engine.handle.wait()
    place.bus.stop()
    place.broker.kill()
    return pids


def test_everything_killed_at_once_and_started_again_answers_all_that_was_unanswered(place, chance):
    streams = place.streams("everything")

    async def main() -> None:
        async with on_both(place.bus.url, place.broker.bootstrap) as both:
            sending = asyncio.create_task(traffic(streams, both.over_both, PER_S, 10 * PER_S))
            await eventually(lambda: streams[0].sequence > PER_S + chance.randrange(50), 20, "under load")
            pids = await asyncio.to_thread(kill_everything, place)
            assert_nothing_left(place.engine, pids, within_s=5)
            place.bus.start()
            await asyncio.to_thread(place.broker.start)
            begin_s = time.monotonic()
            await asyncio.to_thread(lambda: place.engine.start().wait_ready(120))
            await whole_again(place, 60)
            ready_s = time.monotonic() - begin_s
            await sending
            assert await asyncio.to_thread(both.kafka.flush, 20) == 0
            await both.all_answered(streams, 30)
            print(f"whole again after {ready_s:.1f} s")
            # What was read again below the commit closed minutes without a prediction: intervals may be others.
            found = place.check(streams, both, engine_lost=True)
            assert found.bad(but=("doubled", "disordered")) == {}
            assert len(found.doubled) < found.sent / 4, "only what was on its way is repeated"

    asyncio.run(main())


def rewind(place: Place) -> int:
    """The record from which windows would be filled, as the group's commit has it."""
    consumer = Consumer({"bootstrap.servers": place.broker.bootstrap, "group.id": f"tickpath-{place.engine.name}"})
    with contextlib.closing(consumer):
        partitions = consumer.list_topics(FEATURES, timeout=20).topics[FEATURES].partitions
        found = consumer.committed([TopicPartition(FEATURES, each) for each in partitions], timeout=20)
    return max(int((each.metadata or "=0").partition("=")[2]) for each in found)


def test_a_lost_engines_successor_fills_windows_that_say_the_same_to_the_bit(tmp_path, issuer):
    """After more minutes than the oldest row that a model reads was computed from: not all of them are read again."""
    with a_place(tmp_path, issuer) as place:
        (stream,) = place.streams("long", 1)

        async def main() -> Both:
            async with on_both(place.bus.url, place.broker.bootstrap) as both:
                await traffic([stream], both.over_both, SLOWLY, SLOWLY * 14)
                await both.all_answered([stream], 15)
                await asyncio.to_thread(until, lambda: rewind(place) > 0, 10, "less than all is read again")
                assert place.engine.handle is not None
                pids = place.engine.children()
                place.engine.handle.kill()
                place.engine.handle.wait()
                assert_nothing_left(place.engine, pids, within_s=5)
                await asyncio.to_thread(lambda: place.engine.start().wait_ready(60))
                await whole_again(place)
                await traffic([stream], both.over_both, PER_S, PER_S)
                await both.all_answered([stream], 15)
            return both

        both = asyncio.run(main())
        assert place.engine.stop() == 0
    twin = undisturbed(tmp_path, issuer, [stream], both, intervals=False)
    assert place.check([stream], both, twin, engine_lost=True).bad(but=("doubled",)) == {}
