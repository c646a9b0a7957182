"""From bytes to a verified message: size, envelope, names, token, company, user, subject, scope.

Owns nothing but what it counts. Runs in ingress. Reads one message from a bus, gives a `Message` or
raises `Refused`. What must stay true: nothing of a stream is looked at before all of this passed.
"""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from engine import limits
from engine.contract.names import FEATURES_SUBJECT, Bus, Kind, Reason, is_name, is_user
from engine.errors import Refused
from engine.ingress.offsets import Place
from engine.ingress.reading import read_envelope
from engine.shared import Expired
from engine.tenancy.policy import may_predict
from engine.tenancy.tokens import Verifier
from fastpath.wire import Envelope

KINDS = {"feature_vectors": Kind.VECTOR, "heartbeat": Kind.HEARTBEAT}


@dataclass(slots=True)
class Message:
    """One verified message on its way to being accepted. `overloaded` ones keep their name alone."""

    envelope: Envelope
    kind: Kind
    tier: int
    bus: Bus
    received_ns: int
    received_unix_ns: int
    size: int
    overloaded: bool = False
    vectors: int = 0  # that got slots when it was accepted
    published_ns: int = 0  # when it got them
    place: Place | None = None  # in Kafka

    def expired(self, age_max_ms: int) -> Expired:
        """Before any deadline of the engine's own."""
        if self.place is not None and self.place.answered:
            return Expired.ANSWERED_BEFORE
        too_old = self.received_unix_ns - self.envelope.timestamp > age_max_ms * 1_000_000
        return Expired.YES if self.kind == Kind.VECTOR and too_old else Expired.NO


@dataclass(slots=True)
class Claimed:
    """What an unverified message says of itself; only well-formed names are kept."""

    company: str = ""
    stream: str = ""
    epoch: int = 0
    sequence: int = 0
    correlation: str = ""


def claimed(envelope: Envelope) -> Claimed:
    return Claimed(
        envelope.company_id if is_name(envelope.company_id) else "",
        envelope.service_source if is_name(envelope.service_source) else "",
        envelope.epoch,
        envelope.sequence,
        envelope.correlation_id[: limits.CORRELATION_ID_BYTES_MAX],
    )


def decode(raw: bytes, message_bytes_max: int) -> Envelope:
    """The envelope, or `too_large` or `malformed`."""
    if len(raw) > message_bytes_max:
        raise Refused(
            Reason.TOO_LARGE,
            f"the message has {len(raw)} bytes, at most {message_bytes_max} are taken; send fewer vectors in one",
        )
    try:
        return read_envelope(raw)
    except DecodeError:
        raise Refused(
            Reason.MALFORMED, "the message is not an ml.v1.MLProcessingEnvelope; send one, serialised by protobuf"
        ) from None


def check_names(envelope: Envelope) -> Kind:
    """The kind of a message whose names can be used; they become subjects, rows and labels."""
    kind = KINDS.get(envelope.message_type)
    if kind is None:
        raise Refused(Reason.MALFORMED, f"message_type must be one of {', '.join(KINDS)}")
    if not is_name(envelope.service_source):
        raise Refused(Reason.MALFORMED, "service_source must be 1 to 64 of A-Z a-z 0-9 _ -")
    if not is_name(envelope.company_id):
        raise Refused(Reason.MALFORMED, "company_id must be 1 to 64 of A-Z a-z 0-9 _ -")
    if not is_user(envelope.user_id):
        raise Refused(Reason.MALFORMED, "user_id must be 1 to 128 printable characters")
    if envelope.epoch == 0 or envelope.sequence == 0:
        raise Refused(
            Reason.MALFORMED,
            "epoch and sequence must be set; a sender numbers from 1 and its epoch is its start in Unix nanoseconds",
        )
    if envelope.timestamp <= 0:
        raise Refused(Reason.MALFORMED, "timestamp must be the sender's time in Unix nanoseconds")
    if len(envelope.correlation_id.encode()) > limits.CORRELATION_ID_BYTES_MAX:
        raise Refused(Reason.MALFORMED, f"correlation_id must be at most {limits.CORRELATION_ID_BYTES_MAX} bytes")
    return kind


def verify(envelope: Envelope, subject: str | None, verifier: Verifier, token_bytes_max: int, ended: bool) -> int:
    """The caller's tier, once the token is good and everything that claims a company agrees with it.

    ended: its token may have ended, because it was answered before and only fills windows again.
    """
    token = envelope.token
    if len(token) > token_bytes_max:
        raise Refused(Reason.TOO_LARGE, f"the token has {len(token)} characters, at most {token_bytes_max} are taken")
    claims = verifier.verify(token, ended)
    if claims.company_id != envelope.company_id:
        raise Refused(Reason.TENANT_MISMATCH, "company_id differs from the token's; send with a token of that company")
    if claims.user_id != envelope.user_id:
        raise Refused(Reason.TENANT_MISMATCH, "user_id differs from the token's sub; send with a token of that user")
    if subject is not None and subject != f"{FEATURES_SUBJECT}.{envelope.company_id}.{envelope.service_source}":
        raise Refused(
            Reason.TENANT_MISMATCH,
            f"the subject must be {FEATURES_SUBJECT}.<company_id>.<service_source> of the envelope",
        )
    if not may_predict(claims):
        raise Refused(Reason.FORBIDDEN, "the token lacks the scope predict")
    return int(claims.tier)
