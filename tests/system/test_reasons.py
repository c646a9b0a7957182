"""Every code of a refused message, over the wire: its sentence, where it is published, whether it is an answer.

`poison` takes a worker that crashes. `internal` is the engine's word for a fault of its own: what a sender
can do to meet it stands in `test_large_answers`. Codes of single vectors stand in `test_statuses`.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.contract.ml.ml_predictions_pb2 import WARMING
from tests.system.servers import EngineProcess, Issuer
from tests.system.traffic import Answer, Stream, connected, eventually

MINUTE_NS = 60 * 10**9
MESSAGE_BYTES = 32_768
TOKEN_BYTES = 2048
LIMITS = {"message_bytes": MESSAGE_BYTES, "token_bytes": TOKEN_BYTES, "vectors": 4, "keys": 2}


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    settings = {"engine": {"deadline_ms": 10_000, "max_message_age_ms": 600_000}, "limits": LIMITS}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        yield running.wait_ready()


@dataclass
class Sent:
    """A message of a case: `subject` empty stands for the stream's own."""

    body: bytes
    subject: str = ""


Case = tuple[Callable[[Stream, Issuer], Sent], str, str]


def changed(stream: Stream, **changes) -> Sent:
    """The stream's next message with fields of its envelope changed; `token` stands for the token in it."""
    token = changes.pop("token", None)
    subject = changes.pop("subject", "")
    stream.message([stream.vector("EURUSD")], **changes)
    envelope = stream.sent[stream.sequence]
    if token is not None:
        envelope.auth_token.jwt = token
    return Sent(envelope.SerializeToString(), subject)


def batch_of(stream: Stream, count: int = 1, **changes) -> Sent:
    """The stream's next message with fields of its batch changed."""
    vectors = []
    for _ in range(count):
        stream.event_ns += MINUTE_NS
        vectors.append(stream.vector("EURUSD"))
    stream.message(vectors)
    envelope = stream.sent[stream.sequence]
    batch = FeatureVectorBatch.FromString(envelope.payload)
    for name, value in changes.items():
        setattr(batch, name, value)
    envelope.payload = batch.SerializeToString()
    return Sent(envelope.SerializeToString())


def with_payload(stream: Stream, payload: bytes) -> Sent:
    return changed(stream, payload=payload)


def two_of_a_kind(stream: Stream) -> Sent:
    vector = stream.vector("EURUSD")
    return Sent(stream.message([vector, vector]))


def with_symbol(stream: Stream, symbol: str) -> Sent:
    vector = stream.vector("EURUSD")
    vector.symbol = symbol
    return Sent(stream.message([vector]))


TOO_LARGE = MESSAGE_BYTES + 1
NAME = "must be 1 to 64 of A-Z a-z 0-9 _ -"
TOKEN = "the token of this message is not valid here; send a valid token with each message"

# What fails up to the epoch: no answer, a report.
REPORTED: dict[str, Case] = {
    "no envelope": (
        lambda stream, _: Sent(b"\xff\xff\xff"),
        "malformed",
        "the message is not an ml.v1.MLProcessingEnvelope; send one, serialised by protobuf",
    ),
    "message type": (
        lambda stream, _: changed(stream, message_type="subscribe"),
        "malformed",
        "message_type must be one of feature_vectors, heartbeat",
    ),
    "no stream": (lambda stream, _: changed(stream, service_source=""), "malformed", f"service_source {NAME}"),
    "stream with a dot": (
        lambda stream, _: changed(stream, service_source="a.b"),
        "malformed",
        f"service_source {NAME}",
    ),
    "company as a wildcard": (lambda stream, _: changed(stream, company_id="*"), "malformed", f"company_id {NAME}"),
    "user with a line end": (
        lambda stream, _: changed(stream, user_id="feed\n"),
        "malformed",
        "user_id must be 1 to 128 printable characters",
    ),
    "no epoch": (
        lambda stream, _: changed(stream, epoch=0),
        "malformed",
        "epoch and sequence must be set; a sender numbers from 1 and its epoch is its start in Unix nanoseconds",
    ),
    "no sequence": (
        lambda stream, _: changed(stream, sequence=0),
        "malformed",
        "epoch and sequence must be set; a sender numbers from 1 and its epoch is its start in Unix nanoseconds",
    ),
    "no timestamp": (
        lambda stream, _: changed(stream, timestamp=0),
        "malformed",
        "timestamp must be the sender's time in Unix nanoseconds",
    ),
    "long correlation id": (
        lambda stream, _: changed(stream, correlation_id="c" * 257),
        "malformed",
        "correlation_id must be at most 256 bytes",
    ),
    "too large": (
        lambda stream, _: Sent(bytes(TOO_LARGE)),
        "too_large",
        f"the message has {TOO_LARGE} bytes, at most {MESSAGE_BYTES} are taken; send fewer vectors in one",
    ),
    "token too large": (
        lambda stream, _: changed(stream, token="t" * (TOKEN_BYTES + 1)),
        "too_large",
        f"the token has {TOKEN_BYTES + 1} characters, at most {TOKEN_BYTES} are taken",
    ),
    "no token": (lambda stream, _: changed(stream, token=""), "unauthenticated", TOKEN),
    "broken token": (lambda stream, _: changed(stream, token=stream.token[:-4]), "unauthenticated", TOKEN),
    "expired token": (
        lambda stream, issuer: changed(stream, token=issuer.token(stream.company, valid_s=-1)),
        "expired_token",
        "the token of this message has expired; get a new one and send the message again",
    ),
    "no scope": (
        lambda stream, issuer: changed(stream, token=issuer.token(stream.company, scopes="models:read operator")),
        "forbidden",
        "the token lacks the scope predict",
    ),
    "other company's token": (
        lambda stream, issuer: changed(stream, token=issuer.token("other")),
        "tenant_mismatch",
        "company_id differs from the token's; send with a token of that company",
    ),
    "other user's token": (
        lambda stream, issuer: changed(stream, token=issuer.token(stream.company, user="somebody")),
        "tenant_mismatch",
        "user_id differs from the token's sub; send with a token of that user",
    ),
    "other stream's subject": (
        lambda stream, _: changed(stream, subject=f"ml.v1.features.{stream.company}.other"),
        "tenant_mismatch",
        "the subject must be ml.v1.features.<company_id>.<service_source> of the envelope",
    ),
    "epoch in the future": (
        lambda stream, _: changed(stream, epoch=time.time_ns() + 62 * 10**9),
        "out_of_range",
        "the epoch lies over a minute in the future; set it to the sender's start and check its clock",
    ),
}

SAME = "company_id and user_id of the batch must equal the envelope's"

# What fails later: an answer, under the message's name.
ANSWERED: dict[str, Case] = {
    "no batch": (
        lambda stream, _: with_payload(stream, b"\xff\xff"),
        "malformed",
        "the payload is not an ml.v1.FeatureVectorBatch",
    ),
    "no vectors": (
        lambda stream, _: batch_of(stream, count=0),
        "malformed",
        "the batch holds no feature vectors; a heartbeat needs none",
    ),
    "symbol with a blank": (
        lambda stream, _: with_symbol(stream, "EUR USD"),
        "malformed",
        "a symbol must be 1 to 24 of A-Z a-z 0-9 . _ / -",
    ),
    "batch of another company": (lambda stream, _: batch_of(stream, company_id="other"), "tenant_mismatch", SAME),
    "batch of another user": (lambda stream, _: batch_of(stream, user_id="other"), "tenant_mismatch", SAME),
    "too many vectors": (
        lambda stream, _: batch_of(stream, count=5),
        "too_many_vectors",
        "the batch holds 5 vectors, at most 4 are taken; split it",
    ),
    "twice the same": (
        lambda stream, _: two_of_a_kind(stream),
        "duplicate_symbol",
        "two vectors have the same symbol and event time; send one of them",
    ),
    "a third key": (
        lambda stream, _: Sent(stream.message([stream.vector(symbol) for symbol in ("GBPUSD", "USDJPY")])),
        "overloaded",
        "the company has 2 keys, at most 2 are kept; send fewer, or wait until idle ones are let go",
    ),
}


async def exchange(url: str, stream: Stream, sent: Sent, numbered: bool) -> tuple[Answer, list[Answer], list[Answer]]:
    """A good message, the case's, a good one again: (the refusal, reports, answers of the stream)."""
    async with connected(url) as (client, reader):
        await client.publish(stream.subject, stream.sent[1].SerializeToString())
        await client.publish(sent.subject or stream.subject, sent.body)
        if not numbered:
            stream.sequence = 1  # whatever was sent has no name
        await client.publish(stream.subject, stream.message([stream.vector("EURUSD")]))
        await eventually(lambda: len(reader.named(stream)) == stream.sequence, 10, "what has a name is answered")
        await eventually(lambda: numbered or reader.reports, 10, "the rest is reported")
        refusals = [each for each in reader.named(stream) if each.envelope.message_type == "ml_rejection"]
        (refusal,) = refusals + reader.reports
        return refusal, reader.reports, reader.named(stream)


def of_case(issuer: Issuer, name: str) -> Stream:
    company = name.translate(str.maketrans(" '", "--"))
    stream = Stream(company, "feed", issuer.token(company, "free"))
    stream.message([stream.vector("EURUSD")])
    stream.event_ns += MINUTE_NS
    return stream


@pytest.mark.parametrize("name", REPORTED)
def test_what_fails_up_to_the_epoch_is_reported_and_takes_no_name(engine, nats_url, issuer, name):
    make, code, detail = REPORTED[name]
    stream = of_case(issuer, name)
    sent = make(stream, issuer)
    refusal, reports, answers = asyncio.run(exchange(nats_url, stream, sent, numbered=False))
    claims = claimed_by(sent.body)
    assert refusal.subject == "ml.v1.rejections"
    assert refusal.rejection == Rejection(code=code, detail=detail, verified=False, **claims)
    envelope = refusal.envelope
    assert (envelope.message_type, envelope.service_source) == ("ml_rejection", engine.name)
    assert refusal.name == f"{engine.name}/{envelope.epoch}/{envelope.sequence}"
    assert envelope.auth_token.jwt == ""
    assert len(reports) == 1
    assert [each.envelope.sequence for each in answers] == [1, 2]
    assert all(each.batch.predictions[0].status == WARMING for each in answers)
    assert all(each.batch.predictions[0].window_gaps == 0 for each in answers)


def claimed_by(body: bytes) -> dict:
    """The ids that an unverified message claims, those that are well-formed."""
    try:
        envelope = MLProcessingEnvelope.FromString(body if len(body) <= MESSAGE_BYTES else b"")
    except Exception:
        envelope = MLProcessingEnvelope()
    plain = {"company_id": envelope.company_id, "source_id": envelope.service_source}
    return {
        **{field: name for field, name in plain.items() if name not in ("*", "a.b")},
        "source_epoch": envelope.epoch,
        "source_sequence": envelope.sequence,
    }


@pytest.mark.parametrize("name", ANSWERED)
def test_what_fails_later_is_answered_under_its_name(engine, nats_url, issuer, name):
    make, code, detail = ANSWERED[name]
    stream = of_case(issuer, name)
    sent = make(stream, issuer)
    refusal, reports, answers = asyncio.run(exchange(nats_url, stream, sent, numbered=True))
    assert refusal.subject == f"ml.v1.rejections.{stream.company}.feed"
    assert refusal.name == f"{engine.name}/{stream.company}/feed/{stream.epoch}/2"
    assert refusal.rejection == Rejection(
        code=code,
        detail=detail,
        source_id="feed",
        source_epoch=stream.epoch,
        source_sequence=2,
        company_id=stream.company,
        verified=True,
    )
    envelope = refusal.envelope
    assert (envelope.epoch, envelope.sequence, envelope.correlation_id) == (stream.epoch, 2, "c-2")
    assert (envelope.service_source, envelope.company_id, envelope.user_id) == (engine.name, stream.company, "feed")
    assert envelope.auth_token.jwt == ""
    assert reports == []
    assert [each.envelope.sequence for each in answers] == [1, 2, 3]
    assert answers[2].batch.predictions[0].status == WARMING
    assert answers[2].batch.predictions[0].window_gaps == 0


def test_an_epoch_older_than_the_last_two_is_stale(engine, nats_url, issuer):
    first = Stream("stale", "feed", issuer.token("stale", "free"))
    oldest = first.epoch

    async def three_epochs() -> Rejection:
        async with connected(nats_url) as (client, reader):
            for epoch in (oldest, oldest + 1, oldest + 2):
                first.epoch, first.sequence = epoch, 0
                first.event_ns += MINUTE_NS
                await client.publish(first.subject, first.message([first.vector("EURUSD")]))
            await eventually(lambda: len(reader.named(first)) == 3, 10, "three epochs are answered")
            first.epoch, first.sequence = oldest, 1
            await client.publish(first.subject, first.message([first.vector("EURUSD")]))
            await eventually(lambda: reader.reports, 10, "the old one is reported")
            assert len(reader.named(first)) == 3
            return reader.reports[0].rejection

    assert asyncio.run(three_epochs()) == Rejection(
        code="stale",
        detail="the epoch is older than the stream's last two; a sender takes its start as epoch and keeps it",
        source_id="feed",
        source_epoch=oldest,
        source_sequence=2,
        company_id="stale",
        verified=False,
    )
