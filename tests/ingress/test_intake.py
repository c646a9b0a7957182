"""From bytes to a verified message: every code on the way, in the contract's order, and faults that do not hide."""

import os
import time
from collections.abc import Callable

import pytest

from engine import records
from engine.contract import names
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.names import Bus, Kind, Reason
from engine.ingress.main import Ingress
from engine.ingress.offsets import Place
from engine.shared import Count, Shared, ring_bell
from tests.ingress.role import SUBJECT, opened, reported, settings_for, signed
from tests.ingress.stand import EPOCH, SMALL, Sender, everything, sent_now, vector
from tests.system.servers import Issuer

NAMES = ("acme", "feed-0", EPOCH, 1)


@pytest.fixture
def ingress(shared: Shared, issuer: Issuer) -> Ingress:
    return opened(shared, settings_for(issuer))


FAULTS: dict[str, tuple[Callable[[MLProcessingEnvelope], None], str]] = {
    "message_type": (
        lambda e: setattr(e, "message_type", "outcome"),
        "malformed: message_type must be one of feature_vectors, heartbeat",
    ),
    "service_source": (
        lambda e: setattr(e, "service_source", "feed.0"),
        "malformed: service_source must be 1 to 64 of A-Z a-z 0-9 _ -",
    ),
    "company_id": (
        lambda e: setattr(e, "company_id", "a" * 65),
        "malformed: company_id must be 1 to 64 of A-Z a-z 0-9 _ -",
    ),
    "user_id": (lambda e: setattr(e, "user_id", "a\nb"), "malformed: user_id must be 1 to 128 printable characters"),
    "epoch": (
        lambda e: setattr(e, "epoch", 0),
        "malformed: epoch and sequence must be set; a sender numbers from 1 and its epoch is its start in Unix "
        "nanoseconds",
    ),
    "sequence": (
        lambda e: setattr(e, "sequence", 0),
        "malformed: epoch and sequence must be set; a sender numbers from 1 and its epoch is its start in Unix "
        "nanoseconds",
    ),
    "timestamp": (
        lambda e: setattr(e, "timestamp", -1),
        "malformed: timestamp must be the sender's time in Unix nanoseconds",
    ),
    "correlation_id": (
        lambda e: setattr(e, "correlation_id", "é" * 129),
        "malformed: correlation_id must be at most 256 bytes",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_names_that_cannot_be_used_are_malformed_before_any_token_is_looked_at(ingress: Ingress, fault: str) -> None:
    envelope = sent_now()
    FAULTS[fault][0](envelope)
    ingress.take(signed(envelope, "not looked at"), SUBJECT, Bus.NATS)
    ((code, detail, *_),) = reported(ingress.shared)
    assert f"{code}: {detail}" == FAULTS[fault][1]
    assert ingress.verifier.signatures_checked == 0


def test_a_report_names_what_was_claimed_where_it_can_be_a_name(ingress: Ingress) -> None:
    ingress.take(signed(sent_now(company_id="a.b", service_source="feed-0", sequence=7), ""), None, Bus.LOCAL)
    ((_, _, *names),) = reported(ingress.shared)
    assert names == ["", "feed-0", EPOCH, 7]


@pytest.mark.parametrize(("answered", "told"), [(True, []), (False, ["expired_token"])])
def test_a_record_that_was_answered_before_needs_no_token_that_still_lasts(
    ingress: Ingress, token: str, answered: bool, told: list[str]
) -> None:
    ingress.verifier._clock = lambda: time.time() + 86_400
    place = Place(end=8, partition=0, offset=3, answered=answered)
    ingress._enter(signed(sent_now(), token), SUBJECT, Bus.KAFKA, place)
    assert [report[0] for report in reported(ingress.shared)] == told
    assert ingress.queues[0].count == (not told)
    ingress._enter(signed(sent_now(sequence=2), token), SUBJECT, Bus.NATS)
    assert [report[0] for report in reported(ingress.shared)][-1] == "expired_token", "it is not remembered for others"


def test_a_name_that_is_too_long_is_not_kept() -> None:
    kept = names._is_name.cache_info().currsize
    assert not any(names.is_name(letter * 100_000) for letter in "abcdefgh")
    assert names._is_name.cache_info().currsize == kept


@pytest.mark.parametrize(
    ("bus", "good", "cores", "wakes"),
    [(Bus.NATS, True, 2, True), (Bus.NATS, False, 2, False), (Bus.KAFKA, True, 2, False), (Bus.NATS, True, 1, False)],
)
def test_a_verified_message_wakes_its_worker_before_it_is_decided(
    shared: Shared, issuer: Issuer, token: str, monkeypatch: pytest.MonkeyPatch,
    bus: Bus, good: bool, cores: int, wakes: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr("engine.child.cores_for", lambda settings: cores)
    ingress = opened(shared, settings_for(issuer))
    bell = shared.bells[ring_bell(0)]
    bell.sleep()
    ingress._enter(signed(sent_now(), token if good else "none"), SUBJECT, bus)
    assert ingress.shared.requests[0].head == 0
    if wakes:
        assert os.eventfd_read(bell.fd) == 1
    else:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(bell.fd)


def test_the_contracts_order_of_checks(ingress: Ingress, issuer: Issuer, token: str) -> None:
    """One message with every fault; each round takes the earliest away, and the next one is told."""
    envelope = Sender(epoch=2**63).batch(vector("A*"), vector("A*"), timestamp=time.time_ns(), user_id="other")
    envelope.company_id = "evil"
    no_scope = issuer.token("acme", user="trader", scopes="models:read")
    codes = []

    def told(jwt: str, subject: str = "ml.v1.features.x.y") -> None:
        ingress.take(signed(envelope, jwt), subject, Bus.NATS)
        codes.extend(f"{code}: {detail}" for code, detail, *_ in reported(ingress.shared))

    envelope.correlation_id = "x" * SMALL.limits.message_bytes
    told("bad")
    envelope.correlation_id = "x" * 257
    told("x" * 9000)
    envelope.correlation_id = ""
    told("x" * 9000)
    told("bad")
    told(issuer.token("acme", user="trader", scopes="models:read", valid_s=-10))
    told(no_scope)
    envelope.company_id = "acme"
    told(no_scope)
    envelope.user_id = "trader"
    told(no_scope)
    told(no_scope, SUBJECT)
    told(token, SUBJECT)
    assert [code.partition(": ")[0] for code in codes] == [
        "too_large",
        "malformed",
        "too_large",
        "unauthenticated",
        "expired_token",
        "tenant_mismatch",
        "tenant_mismatch",
        "tenant_mismatch",
        "forbidden",
        "out_of_range",
    ]
    assert codes[5:8] == [
        "tenant_mismatch: company_id differs from the token's; send with a token of that company",
        "tenant_mismatch: user_id differs from the token's sub; send with a token of that user",
        "tenant_mismatch: the subject must be ml.v1.features.<company_id>.<service_source> of the envelope",
    ]
    assert ingress.shared.requests[0].head == 0  # all of these were no answers
    envelope.epoch = EPOCH
    ingress.take(signed(envelope, token), SUBJECT, Bus.NATS)
    ingress.take(signed(envelope, token), SUBJECT, Bus.NATS)
    slots = ingress.shared.requests[0].slots[:2]
    assert (slots["kind"].tolist(), slots["reason"].tolist()) == ([Kind.REJECTION, 0], [Reason.MALFORMED, 0])
    assert ingress.counters[Count.DUPLICATES] == 1


def test_bytes_that_are_no_envelope_are_malformed(ingress: Ingress) -> None:
    for raw in (b"\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe", b"\x80" * 100):
        ingress.take(raw, SUBJECT, Bus.NATS)
    expected = "the message is not an ml.v1.MLProcessingEnvelope; send one, serialised by protobuf"
    assert reported(ingress.shared) == [("malformed", expected, "", "", 0, 0)] * 4


def test_a_message_of_exactly_the_limit_is_read(ingress: Ingress) -> None:
    most = SMALL.limits.message_bytes
    for size, code in ((most, "malformed"), (most + 1, "too_large")):
        ingress.take(b"\xff" * size, None, Bus.LOCAL)
        ((found, *_),) = reported(ingress.shared)
        assert found == code


def test_a_good_message_is_accepted_with_the_tokens_tier(ingress: Ingress, token: str) -> None:
    ingress.take(signed(sent_now(), token), SUBJECT, Bus.NATS)
    slot = ingress.shared.requests[0].slots[0]
    assert (slot["kind"], slot["tier"], slot["reason"]) == (Kind.VECTOR, 3, 0)
    assert reported(ingress.shared) == []


def test_a_bad_message_that_claims_another_companys_stream_leaves_it_untouched(
    ingress: Ingress, issuer: Issuer, token: str
) -> None:
    ingress.take(signed(sent_now(), token), SUBJECT, Bus.NATS)
    before = everything(ingress.shared)
    theirs = issuer.token("evil", user="trader")
    huge = {"epoch": time.time_ns(), "sequence": 2**64 - 1}
    for jwt, company, subject in (
        ("", "acme", SUBJECT),
        (theirs, "acme", SUBJECT),
        (theirs, "acme", "ml.v1.features.evil.feed-0"),
        (theirs, "evil", SUBJECT),
        (token[:-8] + "AAAAAAAA", "acme", SUBJECT),
    ):
        for message_type in ("feature_vectors", "heartbeat"):
            envelope = sent_now(company_id=company, **huge)
            envelope.message_type = message_type
            ingress.take(signed(envelope, jwt), subject, Bus.NATS)
    assert everything(ingress.shared) == before
    assert len(reported(ingress.shared)) == 10
    ingress.take(signed(sent_now(sequence=2), token), SUBJECT, Bus.NATS)
    slot = ingress.shared.requests[0].slots[1]
    assert records.read(ingress.shared.inputs, int(slot["record"])).head.late == 0
    assert ingress.counters[Count.MISSING] == 0


def test_a_fault_while_reading_is_told_as_internal(
    ingress: Ingress, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("engine.ingress.admission.verify", lambda *_: 1 // 0)
        ingress.take(signed(sent_now(), token), SUBJECT, Bus.NATS)
    assert reported(ingress.shared) == [
        ("internal", "the engine could not read this message; its operator has the details", *NAMES)
    ]


def test_a_fault_in_the_middle_of_an_input_ends_the_process_instead_of_hiding(
    ingress: Ingress, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("engine.ingress.sequencing.fill_slots", lambda *_: 1 // 0)
        ingress.take(signed(sent_now(), token), SUBJECT, Bus.NATS)
    assert isinstance(ingress.broken, ZeroDivisionError)
    ingress.take(signed(sent_now(sequence=2), token), SUBJECT, Bus.NATS)
    assert ingress.shared.requests[0].head == 0  # nothing more until a successor completed that one
    successor = opened(ingress.shared, ingress.settings)
    assert successor.shared.requests[0].head == 1
    assert successor.counters[Count.REAPPLIED] == 1


def test_junk_is_reported_up_to_a_rate_and_the_rest_is_counted_and_told(shared: Shared, issuer: Issuer) -> None:
    ingress = opened(shared, settings_for(issuer, junk_per_s=20))
    for _ in range(100):
        ingress.take(b"\xff", SUBJECT, Bus.NATS)
    assert len(reported(shared)) == 20
    ingress.reports.second_passed()
    assert reported(shared) == [
        (
            "overloaded",
            "80 further messages were refused in the last second and are not reported one by one",
            "",
            "",
            0,
            0,
        )
    ]
    assert (ingress.counters[Count.UNVERIFIED], ingress.counters[Count.UNVERIFIED_UNREPORTED]) == (100, 80)
    ingress.take(b"\xff", SUBJECT, Bus.NATS)
    assert len(reported(shared)) == 1


def test_a_full_ring_of_reports_drops_and_counts_them_and_the_sum_is_told_later(shared: Shared, issuer: Issuer) -> None:
    ingress = opened(shared, settings_for(issuer, junk_per_s=10_000))
    for _ in range(1100):
        ingress.take(b"\xff", SUBJECT, Bus.NATS)
    ingress.reports.second_passed()
    assert len(reported(shared)) == 1024
    ingress.reports.second_passed()
    ((code, detail, *_),) = reported(shared)
    assert (code, detail.partition(" ")[0]) == ("overloaded", "76")
