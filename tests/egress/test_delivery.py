"""Answers to local readers: whose, in which order, what happens to those whom nobody reads, verdicts and room."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from engine import limits
from engine.bus.nats import NatsLink
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.names import Status
from engine.egress import delivery
from engine.settings import Nats
from engine.shared import FINISHED, VERDICT_BITS, Count, Shared, Verdict, verdict_of, verdict_word
from tests.egress.stand import Desk, answer, comparable, predictions, run, until
from tests.ingress.stand import Sender, Stand, vector

SOON_NS = 10**10


def verdict(shared: Shared, position: int) -> Verdict:
    word = int(shared.verdicts[position & (limits.INPUTS_IN_FLIGHT_MAX - 1)])
    assert word >> VERDICT_BITS in (0, position)
    return verdict_of(word, position)


def take(stand: Stand, sender: Sender, count: int = 1, received_ns: int | None = None) -> None:
    for _ in range(count):
        now_ns = time.monotonic_ns() + SOON_NS if received_ns is None else received_ns
        assert stand.take(sender.batch(vector(minute=sender.next)), received_ns=now_ns)


def away() -> NatsLink:
    """A NATS that is configured and not there."""
    return NatsLink(Nats(url="nats://127.0.0.1:1"), "t", logging.getLogger("t"), lambda _: None)


def test_a_reader_gets_its_own_companys_answers_in_order(shared: Shared, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        acme, evil = await desk.reader("acme"), await desk.reader("evil")
        ours, theirs = Sender("acme"), Sender("evil")
        for _ in range(5):
            take(stand, ours)
            take(stand, theirs)
        answer(shared)
        await desk.pass_on()
        await until(lambda: len(acme.envelopes) == len(evil.envelopes) == 5, "all answers")
        assert acme.sequences == evil.sequences == [1, 2, 3, 4, 5]
        assert {envelope.company_id for envelope in acme.envelopes} == {"acme"}
        assert {envelope.company_id for envelope in evil.envelopes} == {"evil"}
        assert [verdict(shared, position) for position in range(1, 11)] == [Verdict.DONE] * 10
        assert shared.answers[0].tail == shared.answers[0].head
        assert (desk.count(Count.SENT), desk.count(Count.CONFIRMED)) == (10, 10)
        await desk.close()

    run(main())


def test_a_company_that_nobody_reads_for_delays_nobody_else(shared: Shared, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        acme = await desk.reader("acme")
        ours, silent = Sender("acme"), Sender("silent")
        for _ in range(3):
            take(stand, silent)
            take(stand, ours)
        answer(shared)
        await desk.pass_on()
        await until(lambda: acme.sequences == [1, 2, 3], "the other company's answers")
        assert shared.answers[0].tail == 0  # the first one still waits for its reader
        late = await desk.reader("silent")
        await desk.pass_on()
        await until(lambda: late.sequences == [1, 2, 3], "what waited, in order")
        assert shared.answers[0].tail == 6
        await desk.close()

    run(main())


def test_what_nobody_read_in_time_is_let_go_and_counted(shared: Shared, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        take(stand, Sender(), 2, received_ns=1)
        answer(shared)
        await desk.pass_on()
        assert (desk.count(Count.UNREAD), desk.count(Count.SENT)) == (2, 0)
        assert shared.answers[0].tail == 2
        assert desk.delivery.idle
        await desk.close()

    run(main())


def test_with_nats_away_nothing_is_let_go(shared: Shared, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path, link=away()).open()
        take(stand, Sender(), 2, received_ns=1)
        answer(shared)
        await desk.pass_on()
        assert (desk.count(Count.UNREAD), shared.answers[0].tail) == (0, 0)
        assert [verdict(shared, position) for position in (1, 2)] == [Verdict.NONE] * 2
        assert not desk.delivery.idle
        await desk.close()

    run(main())


def test_an_answer_whose_only_reader_left_just_then_is_kept_for_the_next(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        leaving = await desk.reader("acme")
        (protocol,) = desk.readers["acme"]
        assert protocol.transport is not None
        protocol.transport.close()  # known to this side before the loop tells anybody
        sender = Sender()
        take(stand, sender, 2)
        answer(shared)
        await desk.pass_on()
        assert shared.answers[0].tail == 0
        await leaving.ended.wait()
        following = await desk.reader("acme")
        await desk.pass_on()
        await until(lambda: following.sequences == [1, 2], "both answers")
        assert shared.answers[0].tail == 2
        await desk.close()

    run(main())


def test_a_reader_that_does_not_read_is_cut_off_and_its_answers_wait_for_another(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        desk.unsent_max = 0
        await desk.reader("acme")
        (protocol,) = desk.readers["acme"]
        assert protocol.transport is not None
        protocol.transport.write(b"\0" * (4 << 20))  # more than the kernel takes from one write
        sender = Sender()
        take(stand, sender)
        answer(shared)
        await desk.pass_on()
        assert (desk.count(Count.LOCAL_CUT), desk.count(Count.SENT), shared.answers[0].tail) == (1, 0, 0)
        assert verdict(shared, 1) == Verdict.SENDING  # it may have been on its way: not decided again
        await until(lambda: not desk.readers, "the reader is gone")
        following = await desk.reader("acme")
        await desk.pass_on()
        await until(lambda: following.sequences == [1], "the answer")
        await desk.close()

    run(main())


def test_two_readers_of_a_company_both_get_everything(shared: Shared, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        one, two = await desk.reader("acme"), await desk.reader("acme")
        take(stand, Sender(), 3)
        answer(shared)
        await desk.pass_on()
        await until(lambda: one.sequences == two.sequences == [1, 2, 3], "all answers twice")
        assert desk.count(Count.SENT) == 3
        await desk.close()

    run(main())


def test_what_nobody_had_before_its_deadline_goes_out_expired_as_a_whole(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        inbox = await desk.reader("acme")
        sender = Sender()
        bad = vector("BAD", 0, mid=float("nan"))
        stand.take(sender.batch(vector("EURUSD", 0), bad, vector("USDJPY", 0)), received_ns=1)
        stand.take(sender.batch(), received_ns=1)
        stand.take(sender.heartbeat(), received_ns=1)
        answer(shared)
        await desk.pass_on()
        await until(lambda: len(inbox.envelopes) == 3, "the answers")
        batch = predictions(inbox.envelopes[0])
        assert [each.status for each in batch.predictions] == [Status.EXPIRED, Status.REJECTED, Status.EXPIRED]
        assert [each.confidence for each in batch.predictions] == [0, 0, 0]
        assert [each.HasField("price") for each in batch.predictions] == [False] * 3
        assert [envelope.message_type for envelope in inbox.envelopes] == ["ml_inference", "ml_rejection", "heartbeat"]
        assert desk.count(Count.EXPIRED_UNSENT) == 1
        await desk.close()

    run(main())


@pytest.mark.parametrize(
    ("stored", "received_ns", "status"),
    [
        (Verdict.SENDING, 1, Status.OK),
        (Verdict.EXPIRED, None, Status.EXPIRED),
        (Verdict.NONE, 1, Status.EXPIRED),
        (Verdict.NONE, None, Status.OK),
    ],
)
def test_a_stored_verdict_is_not_decided_again_by_a_successor(
    shared: Shared, stand: Stand, tmp_path: Path, stored: Verdict, received_ns: int | None, status: Status
) -> None:
    async def main() -> None:
        take(stand, Sender(), received_ns=received_ns)
        answer(shared)
        if stored != Verdict.NONE:
            shared.verdicts[1] = verdict_word(1, stored)
        desk = await Desk(shared, tmp_path).open()
        inbox = await desk.reader("acme")
        await desk.pass_on()
        await until(lambda: inbox.envelopes, "the answer")
        assert [each.status for each in predictions(inbox.envelopes[0]).predictions] == [status]
        assert verdict(shared, 1) in FINISHED
        await desk.close()

    run(main())


def test_a_successor_sends_again_what_is_not_done_with_the_same_predictions_to_the_bit(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        first = await Desk(shared, tmp_path).open()
        inbox = await first.reader("acme")
        sender = Sender()
        take(stand, sender, 6)
        answer(shared)
        await first.pass_on()
        await until(lambda: len(inbox.envelopes) == 6, "all answers")
        await first.close()
        # As if it had been killed before the second half was confirmed: their verdicts stand, their slots too.
        for position in range(4, 7):
            shared.verdicts[position] = verdict_word(position, Verdict.SENDING)
        ring = shared.arena.memory("answers.0").cast("Q")
        ring[16] = 2  # the tail, two cache lines behind the head
        successor = await Desk(shared, tmp_path).open()
        again = await successor.reader("acme")
        await successor.pass_on()
        await until(lambda: len(again.envelopes) == 3, "what was not done")
        assert [comparable(each) for each in again.envelopes] == [comparable(each) for each in inbox.envelopes[3:]]
        assert shared.answers[0].tail == shared.answers[0].head
        await successor.close()

    run(main())


def test_room_is_released_in_order_however_answers_are_confirmed(shared: Shared, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        second = await desk.reader("second")
        first_sender, second_sender = Sender("first"), Sender("second")
        take(stand, first_sender)
        take(stand, second_sender, 2)
        answer(shared)
        await desk.pass_on()
        await until(lambda: second.sequences == [1, 2], "its answers")
        assert [verdict(shared, position) for position in (1, 2, 3)] == [Verdict.NONE, Verdict.DONE, Verdict.DONE]
        assert shared.answers[0].tail == 0
        stand.sequencer.advance_tail()
        assert shared.inputs.tail == 0
        await desk.reader("first")
        await desk.pass_on()
        stand.sequencer.advance_tail()
        assert (shared.answers[0].tail, shared.inputs.tail) == (3, shared.inputs.head)
        await desk.close()

    run(main())


def test_the_outbox_of_a_bus_that_is_away_is_bounded_and_counts_what_it_dropped(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path, link=away(), outbox_bytes=2000).open()
        inbox = await desk.reader("acme")
        sender = Sender()
        for _ in range(20):
            take(stand, sender)
            answer(shared)
            await desk.pass_on()
            assert desk.nats.waiting_bytes <= 2000
        await until(lambda: len(inbox.envelopes) == 20, "all answers")
        kept = [answer for answer, _ in desk.nats.outbox]
        assert len(kept) + desk.count(Count.OUTBOX_DROPPED) == 20
        assert sum(len(each.body) for each in kept) == desk.nats.waiting_bytes == desk.count(Count.OUTBOX_BYTES)
        assert [each.name.rsplit("/")[-1] for each in kept] == [str(n) for n in range(21 - len(kept), 21)]
        assert shared.answers[0].tail == 20
        await desk.close()

    run(main())


def test_a_heartbeat_leaves_behind_the_answers_before_it(shared: Shared, stand: Stand, tmp_path: Path) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        inbox = await desk.reader("acme")
        sender = Sender()
        take(stand, sender)
        stand.take(sender.heartbeat(), received_ns=time.monotonic_ns())
        take(stand, sender)
        answer(shared)
        await desk.pass_on()
        await until(lambda: len(inbox.envelopes) == 3, "all three")
        assert [(each.message_type, each.sequence) for each in inbox.envelopes] == [
            ("ml_inference", 1),
            ("heartbeat", 2),
            ("ml_inference", 2),
        ]
        await asyncio.sleep(0)
        await desk.close()

    run(main())


def test_answer_slots_that_make_no_sense_become_one_internal_rejection_and_end_nothing(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = await Desk(shared, tmp_path).open()
        reader = await desk.reader("acme")
        take(stand, Sender("acme"), 3)
        answer(shared)
        shared.answers[0].slots[1]["status"] = 77
        await desk.pass_on()
        await until(lambda: len(reader.envelopes) == 3, "all answers")
        kinds = [envelope.message_type for envelope in reader.envelopes]
        assert kinds == ["ml_inference", "ml_rejection", "ml_inference"]
        rejection = Rejection.FromString(reader.envelopes[1].payload)
        assert (rejection.code, rejection.source_sequence) == ("internal", 2)
        assert rejection.detail == "the engine could not word its answer; its operator has the details"
        await desk.close()

    run(main())


class Returning:
    """What egress needs of a NATS connection, which stands from `up` on; the bodies that it was given."""

    def __init__(self) -> None:
        self.is_up = False
        self.connections = 1
        self.client = self
        self.max_payload = 1 << 20
        self.sequences: list[int] = []

    def publish(self, subject: str, body: bytes, name: str) -> None:
        self.sequences.append(MLProcessingEnvelope.FromString(body).sequence)


@pytest.mark.parametrize("after", range(1, 9))
def test_a_bus_that_comes_back_amid_answers_gets_what_it_missed_first(
    shared: Shared, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(delivery, "WRITE_EVERY_NS", 0)  # others run between any two answers

    async def main() -> None:
        link = Returning()
        desk = await Desk(shared, tmp_path, link).open()
        acme = await desk.reader("acme")

        async def come_back() -> None:
            for _ in range(after):
                await asyncio.sleep(0)
            link.is_up = True

        take(stand, Sender("acme"), 10)
        answer(shared)
        coming = asyncio.create_task(come_back())
        await desk.pass_on()
        await coming
        await desk.pass_on()
        assert link.sequences == list(range(1, 11))
        await until(lambda: acme.sequences == list(range(1, 11)), "all answers")
        await desk.close()

    run(main())
