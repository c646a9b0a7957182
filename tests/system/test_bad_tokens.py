"""No bad token changes anything: each is reported, none is answered, and no stream notices.

The engine under attack knows a key of every kind and allows every algorithm, so that nothing is refused
merely because the configuration is narrow.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from tests.system import tokens_now
from tests.system.servers import EngineProcess, Issuer
from tests.system.traffic import Stream, connected, eventually

issuer_of_now, table = tokens_now.load()
COMPANY, USER = "acme", "trader-7"  # of the table's tokens
TOKEN_BYTES_MAX = 8192
MINUTE_NS = 60 * 10**9
HUGE = 2**63

UNAUTHENTICATED = (
    "unauthenticated",
    "the token of this message is not valid here; send a valid token with each message",
)
EXPIRED = ("expired_token", "the token of this message has expired; get a new one and send the message again")
MALFORMED = ("malformed", "the message is not an ml.v1.MLProcessingEnvelope; send one, serialised by protobuf")
FORBIDDEN = ("forbidden", "the token lacks the scope predict")
OTHER_COMPANY = ("tenant_mismatch", "company_id differs from the token's; send with a token of that company")
OTHER_USER = ("tenant_mismatch", "user_id differs from the token's sub; send with a token of that user")

SOON = {"nbf in a second", "nbf in a moment"}  # good by the time they arrive
MORE: dict[str, tuple[Callable[[], str], tuple[str, str]]] = {
    "nbf in an hour": (lambda: issuer_of_now.good(nbf=issuer_of_now.NOW + 3600), UNAUTHENTICATED),
    "expired a second ago": (lambda: issuer_of_now.good(exp=issuer_of_now.NOW - 1), EXPIRED),
    "expired in 1970": (lambda: issuer_of_now.good(exp=0), EXPIRED),
    "of another company": (lambda: issuer_of_now.good(company_id="bolt"), OTHER_COMPANY),
    "of another user": (lambda: issuer_of_now.good(sub="trader-8"), OTHER_USER),
    "without the scope": (lambda: issuer_of_now.good(scope="models:read models:write operator"), FORBIDDEN),
    "with a scope that begins like it": (lambda: issuer_of_now.good(scope="predict:all predicts"), FORBIDDEN),
}


@pytest.fixture(autouse=True)
def now() -> None:
    tokens_now.set_clock(issuer_of_now, table)


@pytest.fixture(scope="module")
def engine(folder: Path, nats_url: str, issuer: Issuer) -> Iterator[EngineProcess]:
    keys = issuer_of_now.write_jwks(
        folder / "all-kinds.json",
        issuer_of_now.ed_jwk(kid="first"),
        issuer_of_now.ed_jwk(issuer_of_now.ED_NEXT, kid="next"),
        issuer_of_now.ec_jwk(kid="curve"),
        issuer_of_now.rsa_jwk(kid="rsa"),
        issuer_of_now.oct_jwk(kid="secret"),
    )
    settings = {
        "engine": {"deadline_ms": 10_000},
        "auth": {
            "jwks_file": str(keys),
            "algorithms": ["EdDSA", "HS256", "ES256", "RS256"],
            "issuer": "https://issuer.example",
        },
        "limits": {"junk_per_s": 10_000, "token_bytes": TOKEN_BYTES_MAX},
    }
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        yield running.wait_ready()


def forged(victim: Stream, token: str, number: int) -> bytes:
    """A message that claims the victim's stream, far ahead of it in sequence and epoch."""
    envelope = MLProcessingEnvelope.FromString(victim.sent[1].SerializeToString())
    envelope.epoch = time.time_ns() + 30 * 10**9
    envelope.sequence = HUGE + number
    envelope.correlation_id = f"forged-{number}"
    envelope.ClearField("auth_token")
    # By hand, because protobuf's own encoder refuses texts that are no UTF-8.
    text = token.encode("utf-8", "surrogatepass")
    field = b"\x0a" + varint(len(text)) + text
    return envelope.SerializeToString() + b"\x52" + varint(len(field)) + field


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def cases() -> list[tuple[str, str, tuple[str, str]]]:
    """(name, token, what is said about it)."""
    found = []
    for name, make in table.BAD.items():
        token = make()
        said = UNAUTHENTICATED
        if len(token) > TOKEN_BYTES_MAX:
            said = ("too_large", f"the token has {len(token)} characters, at most {TOKEN_BYTES_MAX} are taken")
        elif any("\ud800" <= character <= "\udfff" for character in token):
            said = MALFORMED
        if name not in SOON:
            found.append((name, token, said))
    return found + [(name, make(), said) for name, (make, said) in MORE.items()]


def test_bad_tokens_are_reported_with_their_code_and_no_stream_is_touched(engine, nats_url):
    victim = Stream(COMPANY, "feed-0", issuer_of_now.good(), user=USER)
    all_cases = cases()
    assert len(all_cases) >= 200
    expected = [said for _, _, said in all_cases]

    async def attack():
        async with connected(nats_url) as (client, reader):
            await client.publish(victim.subject, victim.message([victim.vector("EURUSD", 240)]))
            await eventually(lambda: reader.named(victim), 10, "the victim's first message is answered")
            for number, (_, token, _) in enumerate(all_cases):
                await client.publish(victim.subject, forged(victim, token, number))
                if number % 20 == 19:  # a good one now and then
                    victim.event_ns += MINUTE_NS
                    await client.publish(victim.subject, victim.message([victim.vector("EURUSD")]))
            await eventually(lambda: len(reader.reports) >= len(all_cases), 30, "each is reported")
            victim.event_ns += MINUTE_NS
            await client.publish(victim.subject, victim.message([victim.vector("EURUSD")]))
            await eventually(lambda: len(reader.named(victim)) == victim.sequence, 10, "the last good one is answered")
            return reader

    before = {name: engine.metric(f"tickpath_{name}_total") for name in ("unverified", "inputs_accepted")}
    reader = asyncio.run(attack())
    assert len(reader.reports) == len(all_cases)
    for (name, _, said), report in zip(all_cases, reader.reports, strict=True):
        rejection = report.rejection
        assert report.subject == "ml.v1.rejections", name
        assert (rejection.code, rejection.detail) == said, name
        assert not rejection.verified, name
        assert report.envelope.auth_token.jwt == "", name
        if said is not MALFORMED:
            assert (rejection.company_id, rejection.source_id) == (COMPANY, "feed-0"), name
            assert report.envelope.correlation_id.startswith("forged-"), name
    print(f"{len(all_cases)} bad tokens: {Counter(code for code, _ in expected)}")

    answers = reader.named(victim)
    assert [answer.envelope.sequence for answer in answers] == list(range(1, victim.sequence + 1))
    assert {answer.envelope.epoch for answer in answers} == {victim.epoch}
    assert all(answer.batch.predictions[0].window_gaps == 0 for answer in answers)
    assert not any(answer.batch.late for answer in answers)
    assert {answer.subject for answer in reader.answers} == {f"ml.v1.predictions.{COMPANY}.feed-0"}
    assert engine.metric("tickpath_unverified_total") - before["unverified"] == len(all_cases)
    assert engine.metric("tickpath_inputs_accepted_total") - before["inputs_accepted"] == victim.sequence
    assert engine.metric("tickpath_missing_total") == 0


def test_a_good_token_of_one_company_moves_no_other_companys_stream(engine, nats_url):
    """Signed by the right key, with the right scope, and far ahead in sequence and epoch: in another's name."""
    victim = Stream("bolt", "feed-0", issuer_of_now.good(company_id="bolt"), user=USER)
    attacker = issuer_of_now.good(company_id="crane")
    ways = {
        "the victim's company": {"company_id": "bolt"},
        "its own company on the victim's subject": {"company_id": "crane"},
    }

    async def attack():
        async with connected(nats_url) as (client, reader):
            await client.publish(victim.subject, victim.message([victim.vector("EURUSD", 240)]))
            for company in ways.values():
                envelope = MLProcessingEnvelope.FromString(forged(victim, attacker, 0))
                envelope.company_id = company["company_id"]
                await client.publish(victim.subject, envelope.SerializeToString())
            victim.event_ns += MINUTE_NS
            await client.publish(victim.subject, victim.message([victim.vector("EURUSD")]))
            await eventually(lambda: len(reader.named(victim)) == 2, 10, "the victim is answered")
            await eventually(lambda: len(reader.reports) == 2, 10, "both are reported")
            return reader

    reader = asyncio.run(attack())
    subject = "the subject must be ml.v1.features.<company_id>.<service_source> of the envelope"
    for report, company, detail in zip(reader.reports, ("bolt", "crane"), (OTHER_COMPANY[1], subject), strict=True):
        rejection = report.rejection
        assert rejection == Rejection(
            code="tenant_mismatch",
            detail=detail,
            source_id="feed-0",
            source_epoch=rejection.source_epoch,
            source_sequence=HUGE,
            company_id=company,
            verified=False,
        )
        assert rejection.source_epoch > victim.epoch
    assert [answer.envelope.sequence for answer in reader.answers] == [1, 2]
    assert all(answer.batch.predictions[0].window_gaps == 0 for answer in reader.answers)
