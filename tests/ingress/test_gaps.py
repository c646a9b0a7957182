"""A gap is waited for while another bus may fill it, and no longer."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest

from engine.bus.frames import encode as frame
from engine.contract.names import Bus
from engine.ingress.admission import Message
from engine.ingress.gaps import GapWait
from engine.shared import INGRESS, KAFKA, BusState, Count, Shared, Stage, ring_bell
from tests.egress.role import Server
from tests.egress.stand import run, until
from tests.ingress.role import SUBJECT, at_work, opened, settings_for, signed
from tests.ingress.stand import EPOCH, Sender, sent_now, vector
from tests.ingress.stand import message as as_admitted
from tests.ingress.test_ingress import good, take_all
from tests.system.servers import Issuer

LONG_MS = 2000  # a wait that no busy host comes near


def message(sequence: int, epoch: int = 1) -> Message:
    return as_admitted(Sender().batch(vector(), sequence=sequence, epoch=epoch))


def test_what_waits_leaves_by_epoch_and_sequence_whatever_the_order_it_came_in() -> None:
    gaps = GapWait(10)
    for epoch, sequence in ((1, 9), (2, 1), (1, 7), (1, 8)):
        assert gaps.hold(message(sequence, epoch), until_ns=100)
    left = []
    while (first := gaps.first(("acme", "feed-0"))) is not None:
        left.append((first.envelope.epoch, first.envelope.sequence))
        gaps.pop(("acme", "feed-0"))
    assert left == [(1, 7), (1, 8), (1, 9), (2, 1)]
    assert gaps.count == 0


def test_no_more_than_so_many_wait_and_each_no_longer_than_told() -> None:
    gaps = GapWait(2)
    assert gaps.hold(message(5), until_ns=300)
    assert gaps.hold(message(4), until_ns=200)
    assert not gaps.hold(message(6), until_ns=400)
    assert list(gaps.due(199)) == []
    assert list(gaps.due(200)) == [("acme", "feed-0")]


class BothBuses:
    """A producer on NATS and one on the local bus, with the role between them and the test."""

    def __init__(self, shared: Shared, issuer: Issuer, token: str, server: Server, folder: Path, wait_ms: int) -> None:
        self.shared, self.token, self.server = shared, token, server
        settings = settings_for(issuer, folder, server.url, queue=64)
        engine = replace(settings.engine, deadline_ms=10 * LONG_MS)
        self.settings = replace(settings, engine=engine, bus=replace(settings.bus, gap_wait_ms=wait_ms))

    async def __aenter__(self) -> "BothBuses":
        self._role = at_work(self.shared, self.settings)
        self.ingress = await self._role.__aenter__()
        row = self.shared.children[INGRESS.row]
        await until(lambda: row["bus_nats"] == BusState.UP, "nats is up")
        self.client = await nats.connect(self.server.url)
        _, self.writer = await asyncio.open_unix_connection(self.settings.bus.local.path)
        await until(lambda: self.ingress.sources.producers, "the local producer is there")
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.writer.close()
        await self.client.close()
        await self._role.__aexit__(None, None, None)

    async def by_nats(self, *sequences: int) -> None:
        """Returns once ingress has them."""
        before = int(self.ingress.counters[Count.MESSAGES])
        for sequence in sequences:
            await self.client.publish(SUBJECT, good(self.token, sequence))
        await self.client.flush()
        await until(lambda: self.ingress.counters[Count.MESSAGES] == before + len(sequences), "nats brought them")
        await until(lambda: not self.ingress.queues[0].count, "each had its turn")

    def by_local(self, *sequences: int) -> None:
        self.writer.write(b"".join(frame(good(self.token, sequence)) for sequence in sequences))


@pytest.fixture
def buses(shared: Shared, issuer: Issuer, token: str, server: Server, tmp_path: Path) -> Any:
    return lambda wait_ms: BothBuses(shared, issuer, token, server, tmp_path, wait_ms)


def test_a_gap_that_the_other_bus_fills_in_time_leaves_in_order_and_nothing_is_late(buses: Any) -> None:
    async def main() -> None:
        async with buses(LONG_MS) as both:
            await both.by_nats(1, 2, 5, 6, 4)
            assert both.ingress.counters[Count.INPUTS_ACCEPTED] == 2
            both.by_local(3)
            assert await take_all(both.ingress, 6) == [(sequence, 0) for sequence in range(1, 7)]
            counters = both.ingress.counters
            assert (counters[Count.LATE], counters[Count.MISSING], counters[Count.DUPLICATES]) == (0, 0, 0)
            both.by_local(3)
            await until(lambda: counters[Count.DUPLICATES] == 1, "a copy")
            stage = both.shared.histograms[INGRESS.row, Stage.INGRESS]
            assert stage["count"] == 6, "of each input, whether it waited or not, and of no copy"

    run(main())


def test_a_gap_that_nobody_fills_is_left_behind_and_what_comes_then_is_late(buses: Any) -> None:
    async def main() -> None:
        async with buses(1) as both:
            await both.by_nats(1, 3, 4)
            assert await take_all(both.ingress, 3) == [(1, 0), (3, 0), (4, 0)]
            both.by_local(2)
            assert await take_all(both.ingress, 4) == [(1, 0), (3, 0), (4, 0), (2, 0)]
            counters = both.ingress.counters
            assert (counters[Count.LATE], counters[Count.MISSING]) == (1, 1)

    run(main())


def test_with_one_bus_a_gap_is_not_waited_for(buses: Any) -> None:
    async def main() -> None:
        async with buses(LONG_MS) as both:
            both.writer.close()
            await until(lambda: not both.ingress.sources.producers, "the local producer is gone")
            await both.by_nats(1, 3)
            assert await take_all(both.ingress, 2) == [(1, 0), (3, 0)]
            assert both.ingress.counters[Count.MISSING] == 1

    run(main())


@pytest.mark.parametrize("first", [Bus.NATS, Bus.KAFKA])
def test_a_message_shows_that_its_own_bus_is_up_before_anybody_says_so(
    shared: Shared, issuer: Issuer, token: str, first: Bus
) -> None:
    """A connection that comes up again brings messages at once, and is told of a little later."""
    other = Bus.KAFKA if first == Bus.NATS else Bus.NATS
    row, word = {Bus.NATS: (INGRESS.row, "bus_nats"), Bus.KAFKA: (KAFKA.row, "bus_kafka")}[other]
    shared.children[row][word] = BusState.UP

    async def main() -> None:
        ingress = opened(shared, settings_for(issuer))
        for bus, sequence in ((other, 1), (first, 3), (other, 2)):
            ingress.take(good(token, sequence), SUBJECT, bus)
        assert await take_all(ingress, 3) == [(1, 0), (2, 0), (3, 0)]
        assert ingress.counters[Count.LATE] == 0

    run(main())


def test_the_other_buss_lag_is_measured_and_waited_for(buses: Any) -> None:
    async def main() -> None:
        async with buses(1) as both:
            await both.by_nats(1, 2, 3)
            both.by_local(1, 2, 3)
            await until(lambda: both.ingress.counters[Count.DUPLICATES] == 3, "the second copies")
            await until(lambda: both.ingress._lag_ns > 0, "the lag is known")
            assert both.ingress._gap_wait_ns(Bus.NATS) == max(both.ingress._lag_ns, 1_000_000)

    run(main())


def test_what_waits_for_a_gap_is_taken_before_the_end_of_a_drain(buses: Any, shared: Shared) -> None:
    async def main() -> None:
        async with buses(LONG_MS) as both:
            await both.by_nats(1, 3)
            both.ingress._draining = True
            assert await take_all(both.ingress, 2) == [(1, 0), (3, 0)]

    run(main())


def test_what_waits_when_a_bus_goes_away_leaves_before_what_comes_next(
    buses: Any, shared: Shared, server: Server, token: str
) -> None:
    async def main() -> None:
        async with buses(LONG_MS) as both:
            await both.by_nats(1, 4, 3)
            await asyncio.to_thread(server.stop)
            await until(lambda: shared.children[INGRESS.row]["bus_nats"] == BusState.DOWN, "nats is away")
            both.by_local(5)
            assert await take_all(both.ingress, 4) == [(sequence, 0) for sequence in (1, 3, 4, 5)]
            counters = both.ingress.counters
            assert (counters[Count.LATE], counters[Count.MISSING]) == (0, 1)

    run(main())


def test_what_waits_when_a_new_epoch_begins_leaves_before_it(buses: Any, token: str) -> None:
    async def main() -> None:
        async with buses(LONG_MS) as both:
            await both.by_nats(1, 4, 3)
            both.writer.write(frame(signed(sent_now(sequence=1, epoch=EPOCH + 1), token)))
            assert await take_all(both.ingress, 4) == [(sequence, 0) for sequence in (1, 3, 4, 1)]
            counters = both.ingress.counters
            assert (counters[Count.LATE], counters[Count.MISSING]) == (0, 1)

    run(main())


def test_nothing_goes_before_what_waited_and_has_no_room_now(
    shared: Shared, issuer: Issuer, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        ingress = opened(shared, settings_for(issuer))
        monkeypatch.setattr(ingress, "_gap_wait_ns", lambda bus: LONG_MS * 1_000_000)
        for sequence in (1, 3):
            ingress.take(good(token, sequence), SUBJECT, Bus.NATS)
        monkeypatch.setattr(ingress, "_gap_wait_ns", lambda bus: 0)
        with monkeypatch.context() as meanwhile:
            take = ingress.sequencer.take
            meanwhile.setattr(
                ingress.sequencer, "take", lambda each, worker: each.envelope.sequence != 3 and take(each, worker)
            )
            ingress.take(good(token, 4), SUBJECT, Bus.NATS)
            assert ingress.queues[0].count == 1
        assert await take_all(ingress, 3) == [(1, 0), (3, 0), (4, 0)]

    run(main())


def test_what_moves_on_when_its_wait_is_over_wakes_its_worker(
    shared: Shared, issuer: Issuer, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        ingress = opened(shared, settings_for(issuer))
        monkeypatch.setattr(ingress, "_gap_wait_ns", lambda bus: 20_000_000)
        for sequence in (1, 3):
            ingress.take(good(token, sequence), SUBJECT, Bus.NATS)
        bell = shared.bells[ring_bell(0)]
        bell.wake()
        bell.sleep()
        assert shared.requests[0].head == 1
        await until(lambda: shared.requests[0].head == 2, "the wait is over")
        assert os.eventfd_read(bell.fd) == 1

    run(main())
