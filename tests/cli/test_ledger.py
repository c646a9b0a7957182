"""The demo's books believe the contract alone."""

import pytest

from engine.cli import summary
from engine.cli.ledger import Ledger, quantiles_ms
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.contract.names import Signal, Status
from engine.contract.trading.market_patterns_pb2 import FLAG, WEDGE

STATUS = dict.fromkeys((status.name for status in Status), 0)


def vectors(sequence, symbols=("EURUSD", "USDJPY")):
    made = [FeatureVector(symbol=symbol, timestamp_ns=sequence * 60_000_000_000) for symbol in symbols]
    for each in made:
        each.price_features.mid_price = 1.5
    return made


def envelope(kind, sequence, payload=b"", company="acme"):
    return MLProcessingEnvelope(
        message_type=kind, company_id=company, epoch=9, sequence=sequence, payload=payload
    ).SerializeToString()


def answer(sequence, status=Status.OK, of=None, company="acme"):
    batch = MLPredictionBatch()
    batch.performance_metrics.engine_time_ms = sequence / 4
    for vector in of if of is not None else vectors(sequence):
        batch.predictions.add(symbol=vector.symbol, timestamp_ns=vector.timestamp_ns, status=int(status))
    return envelope("ml_inference", sequence, batch.SerializeToString(), company)


@pytest.fixture
def ledger():
    """Of a company that sent three messages of two vectors, due at 1, 2 and 3 ms."""
    ledger = Ledger("acme", "PRO", ("EURUSD", "USDJPY"))
    for sequence in (1, 2, 3):
        ledger.expect(sequence, sequence * 1_000_000, vectors(sequence))
    return ledger


def settle(ledger, engine_status=0):
    account = ledger.account()
    engine_ms = quantiles_ms(ledger.engine_ns)
    books = {
        "accounts": [account],
        "seconds": 2.0,
        "wire_ms": account["latency_ms"],
        "wire_count": len(ledger.latencies_ns),
        "engine_ms": engine_ms,
    }
    return summary.settle(books, engine_status, drained_s=0.25)


def test_every_vector_answered_once_in_order_adds_up(ledger):
    ledger.take(answer(1), 1_500_000)
    ledger.take(envelope("ml_rejection", 2, Rejection(code="overloaded").SerializeToString()), 4_000_000)
    ledger.take(envelope("heartbeat", 4), 4_000_000)
    ledger.take(answer(3, Status.DEGRADED), 4_000_000)
    assert settle(ledger) == {
        "adds_up": True,
        "missing": [],
        "vectors_sent": 6,
        "messages_sent": 3,
        "answers": STATUS | {"OK": 2, "DEGRADED": 2, "REJECTED": 2},
        "unanswered": 0,
        "doubled": 0,
        "disordered": 0,
        "misfit": 0,
        "seconds": 2.0,
        "vectors_per_s": 3.0,
        "wire_to_wire_ms": {"p50": 1.0, "p90": 2.0, "p99": 2.0, "max": 2.0},
        "wire_to_wire_count": 3,
        "engine_ms": {"p50": 0.25, "p90": 0.75, "p99": 0.75, "max": 0.75},
        "companies": [
            {
                "company": "acme",
                "tier": "PRO",
                "sent": 6,
                "answers": STATUS | {"OK": 2, "DEGRADED": 2, "REJECTED": 2},
            }
        ],
        "engine_exit_status": 0,
        "drain_s": 0.25,
    }


FAULTS = {
    "an answer too few": (
        [answer(1), answer(2)],
        ["6 vectors were sent, 4 answers counted", "2 vectors have no answer"],
    ),
    "an answer twice": ([answer(1), answer(2), answer(2), answer(3)], ["1 answers came again under their name"]),
    "out of order": ([answer(2), answer(1), answer(3)], ["1 answers came out of their stream's order"]),
    "of a name never sent": (
        [answer(1), answer(2), answer(3), answer(4)],
        ["1 answers name nothing that was sent, or hold other vectors"],
    ),
    "of another company": (
        [answer(1), answer(2), answer(3), answer(1, company="other")],
        ["1 answers name nothing that was sent, or hold other vectors"],
    ),
    "of other vectors": (
        [answer(1), answer(2), answer(3, of=vectors(2))],
        ["6 vectors were sent, 4 answers counted", "2 answers name nothing that was sent, or hold other vectors"],
    ),
    "a vector left out": (
        [answer(1), answer(2), answer(3, of=vectors(3, ("EURUSD",)))],
        ["6 vectors were sent, 4 answers counted", "2 answers name nothing that was sent, or hold other vectors"],
    ),
}


@pytest.mark.parametrize(("bodies", "missing"), FAULTS.values(), ids=FAULTS.keys())
def test_what_does_not_add_up_is_named(ledger, bodies, missing):
    for body in bodies:
        ledger.take(body, 5_000_000)
    result = settle(ledger)
    assert (result["adds_up"], result["missing"]) == (False, missing)


def test_an_engine_that_did_not_end_well_does_not_add_up(ledger):
    for sequence in (1, 2, 3):
        ledger.take(answer(sequence), 5_000_000)
    assert settle(ledger, engine_status=-9)["missing"] == ["the engine ended with status -9, expected 0 after SIGTERM"]


def test_nothing_sent_does_not_add_up():
    result = settle(Ledger("acme", "PRO", ()))
    assert result["missing"] == ["no vector was sent"]
    assert summary.lines(result)[-1] == "Missing: no vector was sent."


def test_a_row_shows_the_last_answer_of_its_symbol(ledger):
    batch = MLPredictionBatch()
    for vector in vectors(1):
        prediction = batch.predictions.add(
            symbol=vector.symbol, timestamp_ns=vector.timestamp_ns, status=int(Status.OK)
        )
        prediction.ensemble.signal, prediction.ensemble.confidence = int(Signal.BUY), 0.5
        prediction.price.horizon_predictions.add(
            horizon_minutes=1, predicted_price=1.5, lower_price=1.25, upper_price=1.75, confidence=0.5, direction=3
        )
        prediction.pattern.detected_patterns.add(pattern_type=WEDGE, probability=0.375)
        prediction.pattern.detected_patterns.add(pattern_type=FLAG, probability=0.75)
    ledger.take(envelope("ml_inference", 1, batch.SerializeToString()), 5_000_000)
    rows = ledger.account()["rows"]
    assert [row["symbol"] for row in rows] == ["EURUSD", "USDJPY"]
    assert rows[0] == {
        "symbol": "EURUSD",
        "event_ns": 60_000_000_000,
        "mid": 1.5,
        "status": "OK",
        "reason": "",
        "signal": "BUY",
        "confidence": 0.5,
        "horizons": [{"minutes": 1, "price": 1.5, "lower": 1.25, "upper": 1.75, "direction": "BUY", "confidence": 0.5}],
        "patterns": [("FLAG", 0.75), ("WEDGE", 0.375)],
    }


def test_the_summary_reads_like_this(ledger):
    for sequence in (1, 2, 3):
        ledger.take(answer(sequence), sequence * 1_000_000 + 612_345)
    assert summary.lines(settle(ledger)) == [
        "",
        "6 vectors of 1 companies in 2.0 s, 3 answers a second",
        "",
        "  OK              6  every model that the company may use answered",
        "  DEGRADED        0  a model answered by its fallback",
        "  WARMING         0  a window was not full yet",
        "  EXPIRED         0  its turn came after its deadline",
        "  REJECTED        0  refused, with a reason",
        "  answers         6  of 6 vectors sent",
        "",
        "  0 unanswered, 0 doubled, 0 out of order",
        "  latency in ms, 3 messages",
        "    from due to read           p50 0.612, p90 0.612, p99 0.612, max 0.612",
        "    of that within the engine  p50 0.500, p90 0.750, p99 0.750, max 0.750",
        "  SIGTERM to exit status 0: 0.25 s",
        "",
        "The counts add up.",
    ]
