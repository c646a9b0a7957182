"""The egress role over real sockets and a real NATS server: who may read, what is confirmed, what outages cost."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.errors import ConnectionClosedError

from engine.child import Child
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.names import Reason
from engine.egress.main import Egress
from engine.errors import Refused, SettingsError
from engine.ingress.admission import Claimed
from engine.ingress.reports import Reports
from engine.settings import Auth
from engine.shared import EGRESS, BusState, Count
from fastpath.doorbell import Doorbell
from tests.egress.role import Server, at_work, done, hand_over, listen, settings_for, take
from tests.egress.stand import Inbox, comparable, run, until
from tests.ingress.stand import Sender, Stand, vector
from tests.system.servers import Issuer, halt


def test_answers_leave_over_nats_under_their_names_and_are_done_once_confirmed(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url, local=False)
        shared = shared_for(settings)
        stand, sender = Stand(shared, settings), Sender()
        got = await listen(server.url)
        async with at_work(shared, settings) as egress:
            await until(lambda: egress.link.is_up, "nats is up")
            take(stand, sender)
            stand.take(sender.batch())
            stand.take(sender.heartbeat())
            take(stand, sender)
            hand_over(shared)
            await until(lambda: len(got) == 4 and done(shared, 1, 2, 3, 4), "sent and confirmed")
        assert [(each.subject, (each.headers or {}).get("Nats-Msg-Id")) for each in got] == [
            ("ml.v1.predictions.acme.feed-0", f"engine-t/acme/feed-0/{sender.epoch}/1"),
            ("ml.v1.rejections.acme.feed-0", f"engine-t/acme/feed-0/{sender.epoch}/2"),
            ("ml.v1.predictions.acme.feed-0", None),
            ("ml.v1.predictions.acme.feed-0", f"engine-t/acme/feed-0/{sender.epoch}/3"),
        ]
        counters = shared.children[EGRESS.row]["counters"]
        assert (counters[Count.SENT], counters[Count.CONFIRMED], counters[Count.RESENT]) == (4, 4, 0)
        assert shared.answers[0].tail == shared.answers[0].head

    run(main())


def test_answers_wait_for_a_nats_that_is_away_and_leave_once_in_order_when_it_comes(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        server.stop()
        settings = settings_for(tmp_path, issuer, server.url, local=False)
        shared = shared_for(settings)
        stand, sender = Stand(shared, settings), Sender()
        async with at_work(shared, settings):
            take(stand, sender, 5)
            hand_over(shared)
            await asyncio.to_thread(server.start)
            got = await listen(server.url)
            await until(lambda: done(shared, 1, 2, 3, 4, 5), "confirmed")
            assert [MLProcessingEnvelope.FromString(each.data).sequence for each in got] == sorted(
                MLProcessingEnvelope.FromString(each.data).sequence for each in got
            )
        counters = shared.children[EGRESS.row]["counters"]
        assert (counters[Count.SENT], counters[Count.RESENT]) == (5, 0)

    run(main())


def test_what_a_killed_server_did_not_confirm_goes_out_again_with_the_same_bits(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url, local=False)
        shared = shared_for(settings)
        stand, sender = Stand(shared, settings), Sender()
        got = await listen(server.url)
        async with at_work(shared, settings) as egress:
            await until(lambda: egress.link.is_up, "nats is up")
            take(stand, sender, 3)
            hand_over(shared)
            await until(lambda: len(got) == 3 and done(shared, 1, 2, 3), "the first ones")
            assert server.handle is not None
            halt(server.handle.pid)  # what is written now is not confirmed
            take(stand, sender, 3)
            hand_over(shared)
            await until(lambda: shared.children[EGRESS.row]["counters"][Count.SENT] == 6, "written")
            assert not done(shared, 4)
            server.stop()
            await until(lambda: shared.children[EGRESS.row]["counters"][Count.RESENT] == 3, "they go out again")
            for _ in range(100):  # turns of the loop: whoever hears of the outage has heard of it by then
                await asyncio.sleep(0)
            assert not any(done(shared, position) for position in (4, 5, 6))
            take(stand, sender, 2)
            hand_over(shared)
            await asyncio.to_thread(server.start)
            await until(lambda: done(shared, *range(1, 9)), "all are confirmed")
            await until(lambda: got and MLProcessingEnvelope.FromString(got[-1].data).sequence == 8, "all are read")
        answers: dict[int, set[bytes]] = {}
        for each in got:
            envelope = MLProcessingEnvelope.FromString(each.data)
            answers.setdefault(envelope.sequence, set()).add(comparable(envelope))
        assert all(len(bits) == 1 for bits in answers.values())
        assert shared.children[EGRESS.row]["counters"][Count.RESENT] == 3
        assert shared.answers[0].tail == shared.answers[0].head

    run(main())


def test_a_connection_that_closed_before_its_client_heard_of_it_is_not_written_to(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url, local=False)
        shared = shared_for(settings)
        stand, sender = Stand(shared, settings), Sender()
        got = await listen(server.url)
        async with at_work(shared, settings) as egress:
            await until(lambda: egress.link.is_up, "nats is up")
            take(stand, sender, 3)
            egress.link._wire.writer.transport.abort()
            assert egress.link.client.is_connected
            assert not egress.link.is_up
            hand_over(shared)
            egress.soon()
            await until(lambda: done(shared, 1, 2, 3), "all are confirmed")
            await until(lambda: len(got) == 3, "all are read")
            assert egress.link.connections == 2

    run(main())


def test_what_could_not_be_written_leaves_before_what_follows_it(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url, local=False)
        shared = shared_for(settings)
        stand, ours, theirs = Stand(shared, settings), Sender(), Sender("other")
        got = await listen(server.url)
        async with at_work(shared, settings) as egress:
            await until(lambda: egress.link.is_up, "nats is up")
            real, failures = egress.link.publish, [1]

            def publish(*arguments: Any) -> None:
                if failures:
                    failures.pop()
                    raise ConnectionClosedError
                real(*arguments)

            monkeypatch.setattr(egress.link, "publish", publish)
            for _ in range(3):
                take(stand, ours)
                take(stand, theirs)
            hand_over(shared)
            await until(lambda: len(got) == 6 and done(shared, *range(1, 7)), "all are confirmed")
        found = [MLProcessingEnvelope.FromString(each.data) for each in got]
        assert [each.sequence for each in found if each.company_id == "acme"] == [1, 2, 3]
        assert [each.company_id for each in found] == ["other"] * 3 + ["acme"] * 3  # who had no trouble did not wait

    run(main())


def test_with_nats_gone_local_readers_go_on_and_room_does_not_run_out(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url)
        shared = shared_for(settings)
        stand, sender = Stand(shared, settings), Sender()
        async with at_work(shared, settings) as egress:
            await until(lambda: egress.link.is_up, "nats is up")
            inbox = await Inbox().open(f"{settings.bus.local.path}.out", issuer.token("acme"))
            await until(lambda: egress.readers, "the reader is known")
            assert server.handle is not None
            halt(server.handle.pid)
            take(stand, sender, 2)  # written to a server that will never confirm them, and to the reader
            hand_over(shared)
            await until(lambda: inbox.sequences == [1, 2], "the reader has them")
            server.stop()
            await until(lambda: done(shared, 1, 2), "the reader's copy counts")
            for _ in range(20):  # twice the ring and more
                take(stand, sender, 30)
                hand_over(shared)
                await until(lambda: done(shared, sender.next - 1), "delivered")
                stand.sequencer.advance_tail()
            await until(lambda: inbox.sequences == list(range(1, sender.next)), "each once, in order")
            got_before = egress.nats.outbox[0][0].name
            assert got_before.endswith("/3")  # what NATS may have is not kept for it a second time
            await asyncio.to_thread(server.start)
            await until(lambda: not egress.nats.outbox, "the outbox is empty")
            assert egress.nats.waiting_bytes == 0
            await inbox.close()

    run(main())


def test_an_answer_that_nats_will_never_take_holds_nothing_up_behind_it(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        server.stop()
        settings = settings_for(tmp_path, issuer, server.url)
        shared = shared_for(settings)
        stand, sender = Stand(shared, settings), Sender()
        async with at_work(shared, settings) as egress:
            inbox = await Inbox().open(f"{settings.bus.local.path}.out", issuer.token("acme"))
            await until(lambda: egress.readers, "the reader is known")
            many = [vector(f"S{number}", 0) for number in range(16)]
            assert stand.take(sender.batch(*many), received_ns=time.monotonic_ns() + 10**10)
            take(stand, sender)
            hand_over(shared)
            await until(lambda: inbox.sequences == [1, 2], "the local reader has both")
            size = len(egress.nats.outbox[0][0].body)
            await asyncio.to_thread(server.start, f"max_payload: {size - 1}")
            got = await listen(server.url)
            take(stand, sender)
            hand_over(shared)
            await until(lambda: done(shared, 1, 2, 3) and not egress.nats.outbox, "nothing waits")
            await until(lambda: got, "what follows leaves")
            await inbox.close()
        assert shared.children[EGRESS.row]["counters"][Count.OUTBOX_DROPPED] == 1

    run(main())


def test_reports_leave_over_nats_under_the_engines_own_name(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url, local=False)
        shared = shared_for(settings)
        counters = shared.children[0]["counters"]
        reports = Reports(shared.rejections, counters, 200)
        got = await listen(server.url)
        async with at_work(shared, settings) as egress:
            await until(lambda: egress.link.is_up, "nats is up")
            for number in range(100):
                # One at a time, each as soon as the one before was seen: no wake-up may be lost.
                reports.report(
                    Claimed("acme", "feed-0", 7, number, "c"), Refused(Reason.UNAUTHENTICATED, "no good token")
                )
                shared.bells[EGRESS.row].ring()
                await until(lambda expected=number + 1: len(got) == expected, "the report")
            epoch = egress.epoch
        assert {each.subject for each in got} == {"ml.v1.rejections"}
        assert [each.headers["Nats-Msg-Id"] for each in got] == [f"engine-t/{epoch}/{n}" for n in range(1, 101)]
        envelope = MLProcessingEnvelope.FromString(got[41].data)
        assert (envelope.message_type, envelope.service_source, envelope.sequence) == ("ml_rejection", "engine-t", 42)
        assert (envelope.company_id, envelope.correlation_id) == ("", "c")
        assert Rejection.FromString(envelope.payload) == Rejection(
            code="unauthenticated",
            detail="no good token",
            source_id="feed-0",
            source_epoch=7,
            source_sequence=41,
            company_id="acme",
            verified=False,
        )
        assert shared.rejections.tail == 100

    run(main())


class LastMoment:
    """A bell whose owner is about to sleep when one more report is written, and not asleep when it is rung."""

    def __init__(self, bell: Doorbell, write: Callable[[], None]) -> None:
        self.bell, self.write, self.fd = bell, write, bell.fd

    def sleep(self) -> None:
        self.write()
        assert not self.bell.ring()
        self.write = lambda: None
        self.bell.sleep()

    def wake(self) -> None:
        self.bell.wake()


def test_a_report_written_just_before_egress_sleeps_is_not_left_lying(
    tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url, local=False)
        shared = shared_for(settings)
        reports = Reports(shared.rejections, shared.children[0]["counters"], 200)
        async with at_work(shared, settings) as egress:
            await until(lambda: egress.link.is_up, "nats is up")
            egress.bell = LastMoment(
                egress.bell, lambda: reports.report(Claimed(), Refused(Reason.MALFORMED, "at the last moment"))
            )
            shared.bells[EGRESS.row].ring()
            await until(lambda: shared.rejections.tail == 1, "the report left")

    run(main())


def test_without_nats_reports_are_let_go(tmp_path: Path, issuer: Issuer, shared_for: Any) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer)
        shared = shared_for(settings)
        reports = Reports(shared.rejections, shared.children[0]["counters"], 200)
        async with at_work(shared, settings):
            reports.report(Claimed(), Refused(Reason.MALFORMED, "x"))
            shared.bells[EGRESS.row].ring()
            await until(lambda: shared.rejections.tail == 1, "let go")

    run(main())


def test_egress_says_over_which_buses_it_sends(tmp_path: Path, issuer: Issuer, server: Server, shared_for: Any) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, server.url)
        shared = shared_for(settings)
        row = shared.children[EGRESS.row]
        async with at_work(shared, settings):
            await until(lambda: row["bus_nats"] == BusState.UP, "nats is up")
            assert row["bus_local"] == BusState.UP
            await asyncio.to_thread(server.stop)
            await until(lambda: row["bus_nats"] == BusState.DOWN, "nats is away")

    run(main())


def test_a_nats_setting_that_cannot_be_used_ends_the_process_with_its_error(
    tmp_path: Path, issuer: Issuer, shared_for: Any
) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer, "tls://127.0.0.1:1")
        missing = replace(settings.bus.nats, tls_ca=str(tmp_path / "nowhere.pem"))
        settings = replace(settings, bus=replace(settings.bus, nats=missing))
        child = Child("egress", EGRESS, settings, shared_for(settings), os.getppid())
        with pytest.raises(FileNotFoundError):
            await Egress(child).serve()

    run(main())


def test_unusable_keys_end_the_start(tmp_path: Path, issuer: Issuer, shared_for: Any) -> None:
    async def main() -> None:
        settings = replace(settings_for(tmp_path, issuer), auth=Auth(jwks_file=str(tmp_path / "nowhere.json")))
        child = Child("egress", EGRESS, settings, shared_for(settings), os.getppid())
        with pytest.raises(SettingsError):
            await Egress(child).serve()

    run(main())
