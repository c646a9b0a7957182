"""What hostile bytes can do: raise counters, and nothing else."""

import random
import resource
import time
from collections.abc import Iterator

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.names import Bus, Kind
from engine.shared import Count, Shared
from tests.ingress.role import SUBJECT, opened, reported, settings_for, signed
from tests.ingress.stand import Sender, arena, everything, release, sent_now, vector
from tests.system.servers import Issuer


def hostile(seed: int, good: bytes) -> Iterator[bytes]:
    """Random bytes, and a good message with bytes flipped, cut, doubled, and with its fields replaced."""
    chance = random.Random(seed)
    while True:
        kind = chance.randrange(5)
        if kind == 0:
            yield chance.randbytes(chance.randrange(400))
        elif kind == 1:
            raw = bytearray(good)
            for _ in range(chance.randrange(1, 8)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            yield bytes(raw)
        elif kind == 2:
            at = chance.randrange(len(good))
            yield good[:at] + chance.randbytes(chance.randrange(20)) + good[at + chance.randrange(20) :]
        elif kind == 3:
            envelope = MLProcessingEnvelope.FromString(good)
            field = chance.choice(["user_id", "company_id", "message_type", "service_source", "correlation_id"])
            setattr(envelope, field, chance.choice(["", "\0", "é" * 300, "../../x", "*", ">", "a b", "x" * 70]))
            yield envelope.SerializeToString()
        else:
            envelope = MLProcessingEnvelope.FromString(good)
            jwt = list(envelope.auth_token.jwt)
            for _ in range(chance.randrange(1, 4)):
                jwt[chance.randrange(len(jwt))] = chance.choice("AZaz09-_.{}\0")
            envelope.auth_token.jwt = "".join(jwt)
            envelope.epoch, envelope.sequence = chance.getrandbits(64), chance.getrandbits(64)
            yield envelope.SerializeToString()


def resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_ten_thousand_hostile_messages_change_nothing_but_counters_and_memory_stays_flat(
    shared: Shared, issuer: Issuer, token: str
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    ingress = opened(shared, settings_for(issuer))
    ingress.take(signed(sent_now(), token), SUBJECT, Bus.NATS)
    good = signed(sent_now(sequence=2), token)
    before = everything(shared)
    after_warming = 0
    for number, raw in zip(range(10_000), hostile(seed, good), strict=False):
        counted = int(ingress.counters[Count.UNVERIFIED])
        accepted = shared.requests[0].head
        ingress.take(raw, SUBJECT, Bus.NATS)
        if shared.requests[0].head != accepted:  # a mutation that the token does not cover: a message of acme's own
            assert MLProcessingEnvelope.FromString(raw).auth_token.jwt == token
            release(shared)
        else:
            told = int(ingress.counters[Count.UNVERIFIED]) - counted
            duplicate = MLProcessingEnvelope.FromString(raw).auth_token.jwt == token if told == 0 else False
            assert told == 1 or duplicate, raw
        ingress.shared.rejections.release(ingress.shared.rejections.head)
        if number == 2_000:
            after_warming = resident_kib()
    assert resident_kib() - after_warming < 4096
    assert ingress.broken is None
    assert len(ingress.sequencer.tables.streams.names) == len(before["streams"]) == 1
    assert ingress.counters[Count.MESSAGES] == 10_001


def test_hostile_payloads_of_a_verified_sender_are_each_answered_or_known(issuer: Issuer, token: str) -> None:
    """The token is good, so each message is a name used up: by an answer, vector by vector or as a whole."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    sender = Sender()
    good = sender.batch(vector("A", history=[1.0] * 5, extra=[1.0]), vector("B")).payload
    with arena() as shared:
        ingress = opened(shared, settings_for(issuer))
        for number in range(3_000):
            payload = bytearray(good)
            for _ in range(chance.randrange(6)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            if chance.random() < 0.2:
                del payload[chance.randrange(len(payload)) :]
            envelope = sender.batch(sequence=number + 1, timestamp=time.time_ns(), payload=bytes(payload))
            ingress.take(signed(envelope, token), SUBJECT, Bus.NATS)
            assert ingress.counters[Count.INPUTS_ACCEPTED] == number + 1
            release(shared)
            ingress.sequencer.advance_tail()
        assert ingress.broken is None
        assert reported(shared) == []
        assert set(shared.requests[0].slots["kind"].tolist()) == {Kind.VECTOR, Kind.REJECTION}
