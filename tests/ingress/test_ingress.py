"""The ingress role over real sockets and a real NATS server: nothing of a producer's is lost or left unsaid."""

import asyncio
import time
from pathlib import Path
from typing import Any

import nats

from engine import records
from engine.bus.frames import encode as frame
from engine.contract.names import Kind, Reason
from engine.ingress.main import Ingress
from engine.ingress.recovery import Recovery
from engine.shared import INGRESS, BusState, Count, Engine, Shared
from tests.egress.role import Server
from tests.egress.stand import run, until
from tests.ingress.role import SUBJECT, at_work, reported, settings_for, signed
from tests.ingress.stand import SMALL, Sender, release, sent_now, vector
from tests.system.servers import Issuer


def good(token: str, sequence: int, company: str = "acme") -> bytes:
    return signed(sent_now(sequence=sequence) if company == "acme" else of(company, sequence), token)


def of(company: str, sequence: int) -> Any:
    return Sender(company).batch(vector(), sequence=sequence, timestamp=time.time_ns())


async def take_all(ingress: Ingress, inputs: int) -> list[tuple[int, int]]:
    """A worker and egress that keep up, until so many inputs came: (sequence, reason) of each."""
    shared, found = ingress.shared, []
    position = 0

    def step() -> bool:
        nonlocal position
        ring = shared.requests[0]
        for each in range(position, ring.head):
            slot = ring.slots[each & ring.mask]
            head = records.read(shared.inputs, int(slot["record"]), whole=False).head
            found.append((head.sequence, int(slot["reason"])))
        position = ring.head
        release(shared)
        shared.bells[INGRESS.row].ring()
        return len(found) >= inputs

    await until(step, f"{inputs} inputs")
    return found


def test_a_burst_of_a_local_producer_waits_whole_and_in_order_whatever_its_length(
    shared: Shared, issuer: Issuer, token: str, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = settings_for(issuer, tmp_path)
        async with at_work(shared, settings) as ingress:
            _, writer = await asyncio.open_unix_connection(settings.bus.local.path)
            writer.write(b"".join(frame(good(token, sequence)) for sequence in range(1, 1001)))
            writer.close()  # gone before it was all read
            found = await take_all(ingress, 1000)
            assert found == [(sequence, 0) for sequence in range(1, 1001)]
            counters = ingress.counters
            assert (counters[Count.DROPPED], counters[Count.OVERLOADED], counters[Count.MISSING]) == (0, 0, 0)
            await until(lambda: not ingress.sources.producers, "the connection ended")

    run(main())


def test_a_producer_that_sends_junk_after_good_frames_loses_none_of_these(
    shared: Shared, issuer: Issuer, token: str, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = settings_for(issuer, tmp_path)
        async with at_work(shared, settings) as ingress:
            reader, writer = await asyncio.open_unix_connection(settings.bus.local.path)
            writer.write(frame(good(token, 1)) + frame(b"\xff") + frame(good(token, 2)))
            await take_all(ingress, 2)
            writer.write(b"\xff\xff\xff\xff")
            assert await reader.read() == b""
            writer.close()
        assert [report[:2] for report in reported(shared)] == [
            ("malformed", "the message is not an ml.v1.MLProcessingEnvelope; send one, serialised by protobuf"),
            ("too_large", "a frame is larger than the 262144 bytes of a message; the connection was closed"),
        ]

    run(main())


def test_a_flood_over_nats_is_answered_overloaded_then_dropped_and_seen_as_a_gap(
    shared: Shared, issuer: Issuer, token: str, server: Server
) -> None:
    async def main() -> None:
        settings = settings_for(issuer, url=server.url)
        async with at_work(shared, settings) as ingress:
            row = shared.children[INGRESS.row]
            await until(lambda: row["bus_nats"] == BusState.UP, "nats is up")
            client = await nats.connect(server.url)
            for sequence in range(1, 101):
                await client.publish(SUBJECT, good(token, sequence))
            await client.flush()
            await until(lambda: ingress.counters[Count.MESSAGES] == 100, "all came")
            # 32 enter the ring, at most 4 wait whole and 4 more as names, the others found no place.
            dropped = int(ingress.counters[Count.DROPPED])
            found = await take_all(ingress, 100 - dropped)
            assert dropped >= 60
            assert [sequence for sequence, _ in found] == sorted({sequence for sequence, _ in found})
            overloaded = [sequence for sequence, reason in found if reason == Reason.OVERLOADED]
            assert found[:4] == [(sequence, 0) for sequence in range(1, 5)]
            assert 0 < len(overloaded) == ingress.counters[Count.OVERLOADED]
            await client.publish(SUBJECT, good(token, 101))
            await client.flush()
            await until(lambda: ingress.counters[Count.INPUTS_ACCEPTED] == len(found) + 1, "the next one")
            assert ingress.counters[Count.MISSING] == dropped
            await client.close()

    run(main())


def test_a_flood_of_one_company_delays_another_by_no_more_than_a_turn(
    shared: Shared, issuer: Issuer, token: str
) -> None:
    async def main() -> None:
        settings = settings_for(issuer, queue=1000)
        async with at_work(shared, settings) as ingress:
            for sequence in range(1, 901):
                ingress.from_nats(good(token, sequence), SUBJECT)
            theirs = issuer.token("quiet", user="trader")
            ingress.from_nats(good(theirs, 1, "quiet"), "ml.v1.features.quiet.feed-0")
            ingress.pump(0)
            ring = shared.requests[0]
            streams = [
                records.read(shared.inputs, int(slot["record"]), whole=False).head.stream
                for slot in ring.slots[: ring.head]
            ]
            assert streams[:6] == [0, 0, 0, 0, 1, 0]  # four messages of a vector each are a turn of their tier
            assert ingress.queues[0].count > 800

    run(main())


def test_a_local_producer_goes_on_while_another_company_floods_nats(
    shared: Shared, issuer: Issuer, token: str, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = settings_for(issuer, tmp_path, queue=1000)
        async with at_work(shared, settings) as ingress:
            _, writer = await asyncio.open_unix_connection(settings.bus.local.path)
            await until(lambda: ingress.sources.producers, "the local producer is there")
            for sequence in range(1, 901):
                ingress.from_nats(good(token, sequence), SUBJECT)
            theirs = issuer.token("quiet", user="trader")
            writer.write(b"".join(frame(good(theirs, sequence, "quiet")) for sequence in range(1, 101)))
            await until(lambda: ingress.counters[Count.MESSAGES] == 1000, "all of both came")
            assert ingress.queues[0].count > 900
            assert (ingress.counters[Count.OVERLOADED], ingress.counters[Count.DROPPED]) == (0, 0)
            writer.close()

    run(main())


def test_a_drain_takes_what_was_handed_over_and_then_says_so(
    shared: Shared, issuer: Issuer, token: str, tmp_path: Path, server: Server
) -> None:
    async def main() -> None:
        settings = settings_for(issuer, tmp_path, server.url, queue=100)
        async with at_work(shared, settings) as ingress:
            await until(lambda: shared.children[INGRESS.row]["bus_nats"] == BusState.UP, "nats is up")
            client = await nats.connect(server.url)
            for sequence in range(1, 31):
                await client.publish(SUBJECT, good(token, sequence))
            await client.flush()
            _, writer = await asyncio.open_unix_connection(settings.bus.local.path)
            writer.write(b"".join(frame(good(token, sequence)) for sequence in range(31, 81)))
            await until(lambda: ingress.counters[Count.MESSAGES] + ingress.sources.held == 80, "all are handed over")
            shared.supervisor[0]["state"] = Engine.DRAINING
            drained = shared.ingress[0]
            assert drained["drained"] == 0
            found = await take_all(ingress, 80)
            assert sorted(found) == [(sequence, 0) for sequence in range(1, 81)]
            await until(lambda: shared.ingress[0]["drained"], "drained")
            await client.publish(SUBJECT, good(token, 81))
            await client.flush()
            writer.write(frame(good(token, 82)))
            counted = int(ingress.counters[Count.MESSAGES])
            for _ in range(20):
                await asyncio.sleep(0)
            assert ingress.counters[Count.MESSAGES] == counted == 80
            writer.close()
            await client.close()

    run(main())


def test_heartbeats_and_rejections_keep_their_place_in_the_stream(
    shared: Shared, issuer: Issuer, token: str, tmp_path: Path
) -> None:
    async def main() -> None:
        settings = settings_for(issuer, tmp_path)
        sender = Sender()
        now_ns = time.time_ns()
        envelopes = [
            sender.batch(vector(), timestamp=now_ns),
            sender.heartbeat(timestamp=now_ns),
            sender.batch(timestamp=now_ns),
            sender.batch(vector(minute=1), timestamp=now_ns),
        ]
        async with at_work(shared, settings) as ingress:
            _, writer = await asyncio.open_unix_connection(settings.bus.local.path)
            writer.write(b"".join(frame(signed(each, token)) for each in envelopes))
            await take_all(ingress, 4)
            kinds = shared.requests[0].slots["kind"][:4].tolist()
            assert kinds == [Kind.VECTOR, Kind.HEARTBEAT, Kind.REJECTION, Kind.VECTOR]
            writer.close()

    run(main())


def test_what_waited_for_kafka_is_let_in_as_there_is_room_and_loses_nothing(
    shared: Shared, issuer: Issuer, token: str
) -> None:
    async def main() -> None:
        count = 75 * SMALL.limits.queue  # more than the ring takes at once
        async with at_work(shared, settings_for(issuer)) as ingress:
            ingress.recovery = Recovery(shared, ingress.offsets, limit_ms=10_000)
            for sequence in range(1, count + 1):
                ingress.from_nats(good(token, sequence), SUBJECT)
            assert await take_all(ingress, count) == [(sequence, 0) for sequence in range(1, count + 1)]
            await until(lambda: ingress.recovery is None, "it is over")

    run(main())


def test_removed_keys_are_no_longer_good_within_a_second(shared: Shared, tmp_path: Path) -> None:
    async def main() -> None:
        issuer = Issuer(tmp_path)
        token = issuer.token("acme", user="trader")
        async with at_work(shared, settings_for(issuer)) as ingress:
            ingress.from_nats(good(token, 1), SUBJECT)
            Issuer(tmp_path)  # other keys in the same file

            def refused() -> bool:
                ingress.from_nats(good(token, 2), SUBJECT)
                return any(report[0] == "unauthenticated" for report in reported(shared))

            await until(refused, "the old key's token is refused")

    run(main())
