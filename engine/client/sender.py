"""A producer's side of the contract: names, numbers and envelopes, without any I/O.

Owns one stream's sequence: a Sender numbers its messages 1, 2, 3, ... from its start, its epoch.
Runs in a producer's process. What must stay true: a number is used once, the same name always
stands for the same bytes, and a heartbeat tells the next number without using it up.
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine.contract import names
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch


class Message(NamedTuple):
    """Ready for a bus; `name` goes into the header `Nats-Msg-Id`, empty for heartbeats."""

    name: str
    subject: str
    body: bytes


class Sender:
    """Numbers and wraps what one instance of a producer sends.

    Parameters
    ----------
    company, user : as in the token's claims
    stream : the producer's instance, its `service_source`
    token : JWT; may be replaced at any time by setting `token`
    epoch : Unix nanoseconds of the producer's start; a restarted producer takes a higher one
    clock : Unix nanoseconds, for envelope timestamps
    """

    def __init__(
        self,
        company: str,
        user: str,
        stream: str,
        token: str,
        epoch: int | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.company = company
        self.user = user
        self.stream = stream
        self.token = token
        self.epoch = clock() if epoch is None else epoch
        self.next = 1
        self.subject = f"{names.FEATURES_SUBJECT}.{company}.{stream}"
        self._clock = clock

    def features(self, vectors: Iterable[FeatureVector]) -> Message:
        """The next message of the stream; at most one vector for each symbol and event time."""
        name = f"{self.company}/{self.stream}/{self.epoch}/{self.next}"
        batch = FeatureVectorBatch(
            user_id=self.user, company_id=self.company, correlation_id=name, created_ns=self._clock()
        )
        batch.feature_vectors.extend(vectors)
        envelope = self._envelope("feature_vectors")
        envelope.payload = batch.SerializeToString()
        envelope.correlation_id = name
        self.next += 1
        return Message(name, self.subject, envelope.SerializeToString())

    def heartbeat(self) -> Message:
        """Tells the next number, so that the loss of a last message is seen; once a second and at the end."""
        return Message("", self.subject, self._envelope("heartbeat").SerializeToString())

    def _envelope(self, message_type: str) -> MLProcessingEnvelope:
        envelope = MLProcessingEnvelope(
            message_type=message_type,
            user_id=self.user,
            company_id=self.company,
            timestamp=self._clock(),
            service_source=self.stream,
            epoch=self.epoch,
            sequence=self.next,
        )
        envelope.auth_token.jwt = self.token
        return envelope


def subscription(company: str, user: str, reader: str, token: str) -> bytes:
    """The envelope that a reader of the local bus sends first; its company's answers follow."""
    envelope = MLProcessingEnvelope(
        message_type="subscribe", company_id=company, user_id=user, service_source=reader, timestamp=time.time_ns()
    )
    envelope.auth_token.jwt = token
    return envelope.SerializeToString()
