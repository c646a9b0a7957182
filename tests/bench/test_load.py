"""The load: numbered, made before its time, the same prices for every contender."""

from itertools import pairwise

from bench.load import BATCHES, HISTORY, LOADS, MINUTE_NS, SINGLES, SYMBOLS, Planned, Stream
from bench.raw_nats import Parser
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch

UNIX_NS = 1_700_000_000_000_000_000


def stream(load, seed=7) -> Stream:
    return Stream(load, "acme", "feed", "token", seed)


def read(each: Planned) -> tuple[MLProcessingEnvelope, FeatureVectorBatch]:
    (message,) = Parser().feed(each.wire.replace(b"HPUB", b"HMSG", 1).replace(b" ", b" 1 ", 2).replace(b" 1 ", b" ", 1))
    envelope = MLProcessingEnvelope.FromString(message.body)
    return envelope, FeatureVectorBatch.FromString(envelope.payload)


def test_messages_are_numbered_and_stamped_with_their_due_times():
    made = stream(SINGLES)
    for n in range(30):
        envelope, batch = read(made.plan(n, UNIX_NS + n))
        assert (envelope.sequence, envelope.timestamp, envelope.company_id) == (n + 1, UNIX_NS + n, "acme")
        (vector,) = batch.feature_vectors
        assert (vector.timestamp_ns, vector.symbol) == (UNIX_NS + n, SYMBOLS[n % len(SYMBOLS)])


def test_every_symbol_begins_with_a_full_window_and_carries_it_once():
    for load in LOADS:
        made, seen = stream(load), set()
        for n in range(40):
            for vector in read(made.plan(n, UNIX_NS + n))[1].feature_vectors:
                assert len(vector.price_history.mid_prices) == (0 if vector.symbol in seen else HISTORY)
                seen.add(vector.symbol)
        assert seen == set(SYMBOLS)


def test_equal_seeds_send_equal_prices():
    def prices(seed: int) -> list[float]:
        made = stream(BATCHES, seed)
        vectors = [vector for n in range(5) for vector in read(made.plan(n, UNIX_NS + n))[1].feature_vectors]
        return [vector.price_features.mid_price for vector in vectors]

    assert prices(3) == prices(3)
    assert prices(3) != prices(4)


def test_minutes_that_vectors_close_are_counted():
    made = stream(BATCHES)
    first = UNIX_NS - UNIX_NS % MINUTE_NS
    for second in (0, 59, 60, 61, 119, 120):
        made.plan(0, first + second * 1_000_000_000)
    assert made.minutes_closed == 2 * len(SYMBOLS)


def test_due_times_are_kept_as_given():
    made = stream(SINGLES)
    dues = [made.plan(due, UNIX_NS + due).due_ns for due in range(0, 10_000, SINGLES.period_ns)]
    assert all(later - earlier == SINGLES.period_ns for earlier, later in pairwise(dues))
