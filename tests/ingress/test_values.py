"""Codes of a whole payload and of one vector, each at its edge, and which of several comes first."""

import math
from typing import Any

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.contract.names import Flag, Kind, Reason
from engine.errors import Refused
from engine.ingress.reading import read_batch, read_envelope
from engine.ingress.values import bounds_of, read_vectors
from engine.settings import Limits
from fastpath.vectors import Batch
from tests.ingress.stand import START_NS, Sender, Stand, vector, with_engine

BOUNDS = Limits()
NAN, INF = math.nan, math.inf
MINUTE_NS = 60 * 10**9


def checked(made: FeatureVector, symbols: tuple[str, ...] = (), **bounds: int) -> tuple[Reason, int]:
    batch = read_batch(Batch(), FeatureVectorBatch(feature_vectors=[made]).SerializeToString())
    batch.check(START_NS, frozenset(symbols), bounds_of(Limits(**bounds)))
    return Reason(int(batch.decisions["reason"][0])), int(batch.decisions["flags"][0])


def vectors_of(envelope: MLProcessingEnvelope) -> Batch:
    """The payload's vectors, unless it is refused as a whole."""
    batch = Batch()
    read_vectors(batch, read_envelope(envelope.SerializeToString()), BOUNDS.vectors)
    return batch


def quote(bid: float, ask: float) -> FeatureVector:
    made = vector()
    made.price_features.bid, made.price_features.ask = bid, ask
    return made


def with_value(path: str, value: float) -> FeatureVector:
    """A good vector with one number replaced, or added to a repeated field."""
    made = vector()
    *parents, name = path.split(".")
    holder: Any = made
    for parent in parents:
        holder = getattr(holder, parent)
    if name in ("correlation_scores", "mid_prices", "extra"):
        getattr(holder, name).append(value)
    else:
        setattr(holder, name, value)
    return made


PRICES = ["price_features.bid", "price_features.ask"]
IGNORED = ["price_features.spread", "price_features.mid_price"]
INDICATORS = {
    "technical_indicators.trend.sma_20": (0.0, 1e12),
    "technical_indicators.trend.ema_12": (0.0, 1e12),
    "technical_indicators.trend.ema_26": (0.0, 1e12),
    "technical_indicators.trend.macd": (-1e12, 1e12),
    "technical_indicators.momentum.rsi_14": (0.0, 100.0),
    "technical_indicators.volatility.atr": (0.0, 1e12),
}
LISTS = ["cross_asset.correlation_scores", "price_history.mid_prices", "extra"]


def test_a_good_vector_has_neither_code_nor_flag() -> None:
    assert checked(vector()) == (Reason.NONE, 0)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("path", [*PRICES, *IGNORED, *INDICATORS, *LISTS])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(path: str, value: float) -> None:
    assert checked(with_value(path, value)) == (Reason.NON_FINITE, 0)


@pytest.mark.parametrize("path", INDICATORS)
def test_indicators_are_taken_up_to_their_bounds(path: str) -> None:
    low, high = INDICATORS[path]
    for value, reason in (
        (low, Reason.NONE),
        (high, Reason.NONE),
        (math.nextafter(low, -INF), Reason.OUT_OF_RANGE),
        (math.nextafter(high, INF), Reason.OUT_OF_RANGE),
    ):
        assert checked(with_value(path, value)) == (reason, 0)


@pytest.mark.parametrize("path", PRICES)
@pytest.mark.parametrize("value", [0.0, -1.0, 1.1e12])
def test_a_price_must_be_positive_and_no_more_than_a_price_can_be(path: str, value: float) -> None:
    assert checked(with_value(path, value)) == (Reason.OUT_OF_RANGE, 0)


@pytest.mark.parametrize("path", IGNORED)
@pytest.mark.parametrize("value", [0.0, -5.0, 1e300])
def test_spread_and_mid_of_the_sender_may_be_anything_finite(path: str, value: float) -> None:
    assert checked(with_value(path, value)) == (Reason.NONE, 0)


@pytest.mark.parametrize("path", LISTS)
def test_lists_are_taken_up_to_their_limits(path: str) -> None:
    most = {"extra": 64, "cross_asset.correlation_scores": 64, "price_history.mid_prices": 240}[path]
    for count, reason in ((most, Reason.NONE), (most + 1, Reason.OUT_OF_RANGE)):
        made = vector()
        holder = made if path == "extra" else getattr(made, path.split(".")[0])
        getattr(holder, path.split(".")[-1]).extend([0.5] * count)
        assert checked(made) == (reason, 0)


def test_limits_of_vectors_can_be_set_downward() -> None:
    made = vector(history=[1.0, 1.0])
    assert checked(made, history=1) == (Reason.OUT_OF_RANGE, 0)
    assert checked(made, history=2) == (Reason.NONE, 0)


@pytest.mark.parametrize(("score", "reason"), [(1.0, 0), (-1.0, 0), (1.0000005, 0), (1.00001, Reason.OUT_OF_RANGE)])
def test_a_correlation_is_at_most_one(score: float, reason: Reason) -> None:
    assert checked(with_value("cross_asset.correlation_scores", score)) == (reason, 0)


@pytest.mark.parametrize("mid", [0.0, -1.0, 2e12])
def test_a_mid_of_the_history_is_a_price(mid: float) -> None:
    assert checked(with_value("price_history.mid_prices", mid)) == (Reason.OUT_OF_RANGE, 0)


@pytest.mark.parametrize(
    ("crossed_bp", "expected"),
    [
        (-1.0, (Reason.NONE, 0)),
        (0.0, (Reason.NONE, 0)),
        (0.01, (Reason.NONE, Flag.CROSSED)),
        (4.999, (Reason.NONE, Flag.CROSSED)),
        (5.001, (Reason.OUT_OF_RANGE, 0)),
        (1e4, (Reason.OUT_OF_RANGE, 0)),
    ],
)
def test_a_quote_may_be_crossed_by_five_basis_points_and_is_flagged(crossed_bp: float, expected: tuple) -> None:
    half = crossed_bp / 2e4
    assert checked(quote(100 * (1 + half), 100 * (1 - half))) == expected


def test_extreme_quotes_are_judged_without_overflow() -> None:
    for bid, ask in ((1e308, 1e308), (5e-324, 5e-324), (1e-300, 1e300), (1e300, 1e-300)):
        assert checked(quote(bid, ask))[0] in (Reason.NONE, Reason.OUT_OF_RANGE)


@pytest.mark.parametrize(
    ("event_ns", "reason"),
    [
        (START_NS + MINUTE_NS, Reason.NONE),
        (START_NS + MINUTE_NS + 1, Reason.OUT_OF_RANGE),
        (1, Reason.NONE),
        (0, Reason.OUT_OF_RANGE),
        (-1, Reason.OUT_OF_RANGE),
        (2**63 - 1, Reason.OUT_OF_RANGE),
        (-(2**63), Reason.OUT_OF_RANGE),
    ],
)
def test_an_event_time_is_positive_and_at_most_a_minute_after_its_envelope(event_ns: int, reason: Reason) -> None:
    made = vector()
    made.timestamp_ns = event_ns
    assert checked(made) == (reason, 0)


def test_only_configured_symbols_are_answered_where_some_are_configured() -> None:
    assert checked(vector("EURUSD"), ("EURUSD",)) == (Reason.NONE, 0)
    assert checked(vector("USDJPY"), ("EURUSD",)) == (Reason.UNKNOWN_SYMBOL, 0)


def test_of_several_faults_of_a_vector_the_earliest_is_told() -> None:
    made = quote(-1.0, NAN)
    assert checked(made, ("OTHER",)) == (Reason.UNKNOWN_SYMBOL, 0)
    assert checked(made) == (Reason.NON_FINITE, 0)
    made.price_features.ask = -1.0
    assert checked(made) == (Reason.OUT_OF_RANGE, 0)


def whole(code_and_detail: str, *vectors: FeatureVector, **changes: Any) -> None:
    with pytest.raises(Refused) as caught:
        vectors_of(Sender().batch(*vectors, **changes))
    assert str(caught.value) == code_and_detail


def test_a_payload_of_other_bytes_is_malformed() -> None:
    whole("malformed: the payload is not an ml.v1.FeatureVectorBatch", payload=b"\xff\xff")


@pytest.mark.parametrize("field", ["company_id", "user_id"])
def test_a_batch_of_somebody_else_is_a_tenant_mismatch(field: str) -> None:
    other = Sender(company="evil") if field == "company_id" else Sender(user="evil")
    payload = other.batch(vector()).payload
    whole("tenant_mismatch: company_id and user_id of the batch must equal the envelope's", payload=payload)


def test_a_batch_without_vectors_is_malformed() -> None:
    whole("malformed: the batch holds no feature vectors; a heartbeat needs none")


def test_a_batch_holds_up_to_sixty_four_vectors() -> None:
    vectors = [vector(f"S{number}") for number in range(65)]
    assert len(vectors_of(Sender().batch(*vectors[:64]))) == 64
    whole("too_many_vectors: the batch holds 65 vectors, at most 64 are taken; split it", *vectors)


@pytest.mark.parametrize("symbol", ["", "A" * 25, "EUR USD", "EURÜSD", "EUR\n", "A*", "A>"])
def test_a_symbol_of_other_characters_is_malformed(symbol: str) -> None:
    whole("malformed: a symbol must be 1 to 24 of A-Z a-z 0-9 . _ / -", vector("OK"), vector(symbol))


def test_a_symbol_twice_at_one_event_time_is_refused_and_at_two_is_not() -> None:
    expected = "duplicate_symbol: two vectors have the same symbol and event time; send one of them"
    whole(expected, vector("A"), vector("B"), vector("A"))
    assert len(vectors_of(Sender().batch(vector("A", 0), vector("A", 0.5)))) == 2


def test_of_several_faults_of_a_payload_the_earliest_is_told() -> None:
    many = [vector("A*") for _ in range(65)]
    payload = Sender(company="evil").batch(*many).payload
    whole("tenant_mismatch: company_id and user_id of the batch must equal the envelope's", payload=payload)
    whole("too_many_vectors: the batch holds 65 vectors, at most 64 are taken; split it", *many)
    whole("malformed: a symbol must be 1 to 24 of A-Z a-z 0-9 . _ / -", *many[:2])


def test_nobody_computes_with_the_numbers_of_a_refused_vector(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector("A", 0, history=[1.0] * 9, extra=[1.0] * 5), vector("B", 0)))
    stand.released()
    bad = vector("A", 1, mid=NAN, history=[1.0] * 9, extra=[1.0] * 5)
    stand.take(sender.batch(bad, vector("B", 1)))
    refused, good = stand.slots()[-2:]
    assert (refused["reason"], good["reason"]) == (Reason.NON_FINITE, 0)
    assert [refused[name] for name in ("history_count", "correlation_count", "extra_count")] == [0, 0, 0]
    assert all(math.isnan(refused[name]) for name in ("bid", "ask", "mid", "spread"))
    assert refused["symbol"] == b"A"


def test_a_refused_vector_leaves_its_key_as_it_was(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector("A", 0)))
    before = stand.shared.keys.tobytes()
    stand.take(sender.batch(vector("A", 1, mid=NAN), vector("NEW", 1, mid=-1.0)))
    assert stand.shared.keys.tobytes() == before


def test_numbers_reach_their_slot_as_they_were_sent(stand: Stand) -> None:
    made = vector("EUR/USD", mid=1 / 3, history=[1.0, 1.5], extra=[7.0, -8.0])
    made.cross_asset.correlation_scores.extend([0.25, -1.0])
    made.technical_indicators.trend.macd = -0.5
    made.technical_indicators.momentum.rsi_14 = 0.0
    stand.take(Sender().batch(made, vector("B")))
    slot, other = stand.slots()
    assert (slot["kind"], slot["index"], slot["count"], slot["symbol"]) == (Kind.VECTOR, 0, 2, b"EUR/USD")
    assert slot["bid"] == made.price_features.bid
    assert slot["mid"] == 0.5 * (made.price_features.bid + made.price_features.ask)
    assert slot["spread"] == made.price_features.ask - made.price_features.bid
    assert slot["extra"][: slot["extra_count"]].tolist() == [7.0, -8.0]
    assert slot["correlations"][: slot["correlation_count"]].tolist() == [0.25, -1.0]
    assert slot["history"][: slot["history_count"]].tolist() == [1.0, 1.5]
    assert [None if math.isnan(each) else each for each in slot["indicators"]] == [None, None, None, -0.5, 0.0, None]
    assert [other[f"{name}_count"] for name in ("extra", "correlation", "history")] == [0, 0, 0]


def test_a_spread_that_is_not_positive_is_unknown(stand: Stand) -> None:
    stand.take(Sender().batch(quote(1.1, 1.1)))
    assert math.isnan(stand.last()["spread"])
    assert (stand.last()["reason"], stand.last()["flags"]) == (0, 0)


def test_configured_symbols_are_a_code_of_the_vector_and_the_rest_is_answered(stand: Stand) -> None:
    other = Stand(stand.shared, with_engine(symbols=("A",)))
    other.take(Sender().batch(vector("A"), vector("B")))
    assert other.slots()["reason"].tolist() == [0, Reason.UNKNOWN_SYMBOL]
