"""What each tier is answered, in each state of its window and its models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contract.names import Kind, Reason, Signal, Status, Tier
from engine.shared import Breaker, Phase
from engine.tenancy.tiers import PLANS, VOTE, Role, fallbacks
from fastpath import layout
from tests.inference.conftest import answer
from tests.inference.market import Market, walk, windows

FULL = 120  # minutes after which every model has its closed ones


def minutes(predictor, tier, count=FULL, mids=None, **more):
    """Answers to one vector a minute."""
    mids = walk(np.random.default_rng(31), count) if mids is None else mids
    market = Market(tier=tier)
    for n, mid in enumerate(mids):
        market.minute(0, n, mid, **more)
    return answer(predictor, market.slots(), count, windows(1))[:count]


MEMBERS = (Role.PRICE, Role.PATTERN, Role.DIRECTION)


def answering(predictor, role, tier):
    """Who has the role in this tier, and whether that is a stand-in."""
    loaded = {model.manifest.id for model in predictor.models.values()} | {VOTE}
    wanted = PLANS[tier].wanted(role)
    return next((name, name != wanted) for name in (wanted, *fallbacks(role, wanted)) if name in loaded)


def ids(predictor, found):
    """Model ids of an answer's contributions."""
    rows = found["contribution_version"][: found["contribution_count"]]
    return [predictor.versions["model_id"][row].decode() for row in rows]


def failing(predictor, model_id):
    """Its row, and a stand-in for the loaded model that the test may break."""
    return next(row for row, model in predictor.models.items() if model.manifest.id == model_id)


class Broken:
    """A model that does what a test wants in place of an answer."""

    def __init__(self, model, run):
        self.role, self.manifest, self.sound = model.role, model.manifest, model.sound
        self.tried = 0
        self._run = run

    def run(self, slots, batch, output, importance):
        self.tried += 1
        self._run(slots, output)


def test_each_tier_has_its_horizons_members_and_extras(predictor):
    free, pro, enterprise = (minutes(predictor, tier)[-1] for tier in Tier)
    assert [each["horizon_count"] for each in (free, pro, enterprise)] == [1, 3, 4]
    assert list(enterprise["horizon_minutes"]) == [1, 5, 15, 60]
    assert list(free["horizon_minutes"]) == [1, 0, 0, 0]
    assert [each["has_direction"] for each in (free, pro, enterprise)] == [0, 1, 1]
    assert [each["shap_count"] for each in (free, pro, enterprise)] == [0, 21, 21]
    assert ids(predictor, free) == ["basic_lstm", "simple_pattern"]
    assert ids(predictor, pro) == [answering(predictor, role, Tier.PRO)[0] for role in MEMBERS]
    assert ids(predictor, enterprise)[:3] == ids(predictor, pro)
    decided = [predictor.versions["model_id"][each["final_version"]].decode() for each in (free, pro, enterprise)]
    assert decided == ["vote", "vote", answering(predictor, Role.ENSEMBLE, Tier.ENTERPRISE)[0]]
    assert [each["model_count"] for each in (free, pro)] == [2, 3]


def test_status_is_ok_where_every_wanted_model_is_there_and_stand_ins_are_marked(predictor):
    for tier in Tier:
        last = minutes(predictor, tier)[-1]
        roles = [role for role in MEMBERS if PLANS[tier].wanted(role) is not None]
        expected = [answering(predictor, role, tier)[1] for role in roles]
        assert list(last["contribution_fallback"][: len(roles)]) == expected
        whole = not any(expected) and not answering(predictor, Role.ENSEMBLE, tier)[1]
        assert last["status"] == (Status.OK if whole else Status.DEGRADED)


@pytest.mark.parametrize("tier", Tier)
def test_status_is_warming_until_every_model_has_its_closed_minutes(predictor, tier):
    answers = minutes(predictor, tier)
    assert next(n for n in range(FULL) if answers["status"][n] != Status.WARMING) == 64
    names = [answering(predictor, role, tier)[0] for role in (Role.PRICE, Role.PATTERN)]
    price, pattern = ([n for n in range(FULL) if name in ids(predictor, answers[n])] for name in names)
    assert (price[0], pattern[0]) == (49, 64)
    assert answers["has_pattern"].sum() == len(pattern)


def test_first_vector_has_a_baseline_price_and_the_trees_opinion(predictor):
    first = minutes(predictor, Tier.PRO, 1)[0]
    assert first["status"] == Status.WARMING
    assert ids(predictor, first) == ["xgboost_direction"]
    assert list(first["price"][:3]) == [first["base_price"]] * 3
    width = 1.47 * 1.25 * 2.0 * 1e-4 * first["base_price"]  # the prior's volatility: 2 bp
    assert first["upper"][0] - first["price"][0] == pytest.approx(width)
    free = minutes(predictor, Tier.FREE, 1)[0]
    assert (free["contribution_count"], free["model_count"], free["ensemble_signal"]) == (0, 0, Signal.HOLD)
    assert predictor.versions["model_id"][free["final_version"]] == b"baseline"


@pytest.mark.parametrize("kind", [Kind.REJECTION, Kind.HEARTBEAT, Kind.VECTOR])
def test_passed_through_slots_keep_their_header_and_nothing_else(predictor, kind):
    slots = np.zeros(2, layout.request_slot_dtype)
    slots[0]["kind"], slots[0]["reason"] = kind, 0 if kind == Kind.HEARTBEAT else Reason.OUT_OF_RANGE
    slots[0]["input"], slots[0]["record"], slots[0]["event_ns"], slots[0]["mid"] = 5, 6, 7, 1.0
    slots[0]["symbol"], slots[0]["symbol_bytes"], slots[0]["index"], slots[0]["count"] = b"EURUSD", 6, 2, 3
    answers = np.full(2 * layout.slot_bytes, 255, "u1").view(layout.answer_slot_dtype)
    window = windows(1)
    answer(predictor, slots, 1, window, verdicts=np.zeros(1, "u1"), answers=answers)
    expected = np.zeros(1, layout.answer_slot_dtype)
    for name in ("input", "record", "event_ns", "kind", "reason", "symbol", "symbol_bytes", "index", "count"):
        expected[name] = slots[0][name]
    expected["taken_ns"], expected["status"] = 7, 0 if kind == Kind.HEARTBEAT else Status.REJECTED
    assert answers[0].tobytes() == expected[0].tobytes()
    assert not window.view("u1").any()


@pytest.mark.parametrize("by", ["verdict", "slot"])
def test_expired_vectors_enter_the_window_and_are_not_predicted(predictor, by):
    mids = walk(np.random.default_rng(32), 100)
    on_time, too_late = Market(tier=3), Market(tier=3)
    for n, mid in enumerate(mids):
        on_time.minute(0, n, mid)
        too_late.minute(0, n, mid, expired=by == "slot" and n == 80)
    verdicts = np.ones(100, "u1")
    verdicts[80] = 2 if by == "verdict" else 1
    ours, theirs = windows(1), windows(1)
    answer(predictor, on_time.slots(), 100, ours)
    expired = answer(predictor, too_late.slots(), 100, theirs, verdicts=verdicts)[80]
    assert expired["status"] == Status.EXPIRED
    for name in ("horizon_count", "contribution_count", "model_count", "ensemble_confidence", "has_direction"):
        assert expired[name] == 0
    for name in ("mid", "minute", "row", "sigma", "trend"):
        np.testing.assert_array_equal(ours[0][name], theirs[0][name], err_msg=name)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(1e-9, 1e12),
            st.one_of(st.just(float("nan")), st.floats(1e-12, 1e9)),
            st.lists(st.floats(-1e300, 1e300), min_size=6, max_size=6),
            st.integers(1, 90),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_the_numbers_answers_are_finite_chances_and_ordered_prices(loaded, vectors):
    market = Market()
    at = 0
    history = np.array([vectors[0][0]] * 100)
    for mid, spread, _, gap in vectors:
        at += gap
        market.minute(0, at, mid, spread=spread, history=history)
    slots = market.slots()
    for n, (_, _, indicators, _) in enumerate(vectors):
        slots[n]["indicators"] = indicators
    answers = answer(loaded, slots, len(vectors), windows(1))[: len(vectors)]
    for each in answers:
        assert each["status"] in (Status.OK, Status.DEGRADED, Status.WARMING)
        horizons = each["horizon_count"]
        low, price, high = each["lower"][:horizons], each["price"][:horizons], each["upper"][:horizons]
        assert np.isfinite(high).all()
        assert ((low >= 0.0) & (low <= price) & (price <= high)).all()
        single = ("buy", "hold", "sell", "direction_confidence", "ensemble_confidence", "trend_strength")
        several = ("horizon_confidence", "contribution_confidence", "pattern_probability", "pattern_chance")
        chances = np.concatenate([[each[name] for name in single], *(each[name] for name in several)])
        assert ((chances >= 0.0) & (chances <= 1.0)).all()
        assert abs(float(each["buy"]) + float(each["hold"]) + float(each["sell"]) - 1.0) <= 1e-6
        assert np.isfinite(each["shap"]).all()
        assert (each["pattern_target"] >= 0.0).all()


def test_vote_is_the_weighted_mean_of_its_members(predictor):
    last = minutes(predictor, Tier.PRO)[-1]
    weight, book = last["weight"][:3].astype(float), predictor._book
    assert weight.sum() == pytest.approx(1.0, abs=1e-6)
    expected = book.weight[last["contribution_version"][:3]]
    np.testing.assert_allclose(weight, expected / expected.sum(), atol=1e-6)
    right = float(last["horizon_confidence"][2])
    rise = right if last["horizon_direction"][2] == Signal.BUY else 1 - right
    version = last["contribution_version"][0]
    touch, slope = book.touch[version], book.side[version]
    side = rise**slope / (rise**slope + (1 - rise) ** slope)
    price = np.array([(1 - side) * touch, 1 - touch, side * touch])
    pattern = book.label_rates[last["contribution_version"][1], last["pattern_signal"] - 1]
    direction = np.array([last["sell"], last["hold"], last["buy"]], float)
    total = weight[0] * price + weight[1] * pattern + weight[2] * direction
    assert last["ensemble_score"] == pytest.approx(total[2] - total[0], abs=1e-6)
    assert last["ensemble_confidence"] == pytest.approx(total.max(), abs=1e-6)
    assert last["ensemble_signal"] == total.argmax() + 1


def test_free_signal_is_the_sign_of_the_next_minute(predictor):
    answers = minutes(predictor, Tier.FREE, 300)[64:]
    assert set(answers["ensemble_signal"]) <= {Signal.SELL, Signal.BUY}
    right = answers["horizon_confidence"][:, 0].astype(float)
    price = np.where(answers["horizon_direction"][:, 0] == Signal.BUY, right, 1.0 - right)
    pattern = predictor._book.rise_rates[answers["contribution_version"][:, 1], answers["pattern_signal"] - 1]
    rise = (answers["weight"][:, :2] * np.stack([price, pattern], axis=1)).sum(axis=1)
    clear = np.abs(rise - 0.5) > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(answers["ensemble_signal"][clear] == Signal.BUY, rise[clear] > 0.5)


def test_shown_patterns_are_above_the_threshold_and_the_likeliest_decides(predictor):
    answers = minutes(predictor, Tier.PRO, 1500)[64:]
    shown = answers[answers["pattern_count"] > 0]
    assert len(shown) > 20
    for each in shown:
        count = each["pattern_count"]
        assert (each["pattern_probability"][:count] > 0.3).all()
        assert (np.diff(each["pattern_probability"][:count]) <= 0).all()
        expected = Signal.BUY if each["pattern_target"][0] > each["base_price"] else Signal.SELL
        assert each["pattern_signal"] == expected
        assert each["pattern_confidence"] == each["pattern_chance"][0]
    assert (answers["pattern_signal"][answers["pattern_count"] == 0] == Signal.HOLD).all()


def test_trend_has_the_sign_of_a_steady_move(predictor):
    up = minutes(predictor, Tier.FREE, 40, mids=1.3 * np.exp(1e-4 * np.arange(40)))[-1]
    down = minutes(predictor, Tier.FREE, 40, mids=1.3 * np.exp(-1e-4 * np.arange(40)))[-1]
    assert (up["trend_signal"], down["trend_signal"]) == (Signal.BUY, Signal.SELL)
    assert min(up["trend_strength"], down["trend_strength"]) > 0.5


def test_inputs_beyond_all_training_are_flagged(predictor):
    calm = minutes(predictor, Tier.FREE, 200)
    assert not (calm["flags"][100:] & 8).any()
    wild = minutes(predictor, Tier.FREE, 200, mids=walk(np.random.default_rng(33), 200, bp=300.0))
    assert (wild["flags"][100:] & 8).all()


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("raises", lambda slots, output: 1 / 0),
        ("gives NaN", lambda slots, output: output.rise.__setitem__((slots, 0), np.nan)),
        ("gives a chance of 1.5", lambda slots, output: output.rise.__setitem__((slots, 0), 1.5)),
        ("gives another shape", lambda slots, output: output.move.__setitem__(slots, np.zeros((len(slots), 7)))),
    ],
)
def test_model_that_fails_is_answered_by_its_fallback_and_counted(predictor, name, spoil):
    row = failing(predictor, "basic_lstm")
    predictor.models[row] = Broken(predictor.models[row], spoil)
    answers = minutes(predictor, Tier.FREE)
    last = answers[-1]
    assert last["status"] == Status.DEGRADED
    assert ids(predictor, last) == ["baseline", "simple_pattern"]
    assert list(last["contribution_fallback"][:2]) == [1, 0]
    assert list(last["weight"][:2]) == [0.0, 1.0]
    assert last["price"][0] == last["base_price"]
    assert last["model_count"] == 1
    assert predictor.child["failures"][0][row] == predictor.models[row].tried > 0
    assert predictor.child["successes"][0][row] == 0


def test_failing_direction_model_holds_with_base_rates(predictor):
    row = failing(predictor, "xgboost_direction")
    predictor.models[row] = Broken(predictor.models[row], lambda slots, output: 1 / 0)
    last = minutes(predictor, Tier.PRO)[-1]
    assert (last["primary"], last["shap_count"]) == (Signal.HOLD, 0)
    np.testing.assert_allclose([last["sell"], last["hold"], last["buy"]], [0.3, 0.4, 0.3], atol=1e-6)


def test_with_no_model_at_all_every_vector_is_still_answered(predictor):
    predictor.models.clear()
    last = minutes(predictor, Tier.ENTERPRISE)[-1]
    assert last["status"] == Status.DEGRADED
    assert ids(predictor, last) == ["baseline"] * 4
    assert (last["model_count"], last["ensemble_signal"], last["horizon_count"]) == (0, Signal.HOLD, 4)
    assert predictor.versions["model_id"][last["final_version"]] == b"baseline"


def test_open_breaker_costs_no_try(predictor):
    row = failing(predictor, "basic_lstm")
    spy = Broken(predictor.models[row], lambda slots, output: 1 / 0)
    predictor.models[row] = spy
    predictor.versions["breaker"][row] = Breaker.OPEN
    last = minutes(predictor, Tier.FREE)[-1]
    assert spy.tried == 0
    assert predictor.child["failures"][0][row] == 0
    assert ids(predictor, last) == ["baseline", "simple_pattern"]


def test_half_open_breaker_lets_one_vector_through_for_each_probe_number(predictor):
    row = failing(predictor, "basic_lstm")
    predictor.versions["breaker"][row] = Breaker.HALF_OPEN
    predictor.versions["probe_worker"][row], predictor.versions["probe_number"][row] = 1, 9
    minutes(predictor, Tier.FREE)
    assert predictor.child["successes"][0][row] == 0  # the probe is another worker's
    predictor.versions["probe_worker"][row] = 0
    minutes(predictor, Tier.FREE)
    assert predictor.child["successes"][0][row] == 1
    predictor.versions["probe_number"][row] = 10
    minutes(predictor, Tier.FREE)
    assert predictor.child["successes"][0][row] == 2


def test_model_in_hand_is_named_while_it_runs_and_not_after(predictor):
    row = failing(predictor, "simple_pattern")
    seen = []
    model = predictor.models[row]

    def look(slots, output):
        seen.append((int(predictor.child["hand_model"][0]), int(predictor.child["phase"][0])))
        output.pattern[slots] = 0.0

    predictor.models[row] = Broken(model, look)
    minutes(predictor, Tier.FREE)
    assert set(seen) == {(row + 1, Phase.IN_MODEL)}
    assert (predictor.child["hand_model"][0], predictor.child["phase"][0]) == (0, Phase.IDLE)


def test_one_slot_that_a_model_fails_on_spoils_no_other(predictor):
    row = failing(predictor, "basic_lstm")
    whole = predictor.models[row]

    def spoil(slots, output):
        whole.run(slots, predictor._batch, output, predictor._extras.importance)
        if 3 in slots:
            output.rise[3, 0] = np.nan

    market = Market(tier=Tier.FREE)
    for key in range(6):
        market.minute(key, 0, 1.5, history=walk(np.random.default_rng(key), layout.history_max))
    expected = answer(predictor, market.slots(), 6, windows(6))
    predictor.models[row] = Broken(whole, spoil)
    found = answer(predictor, market.slots(), 6, windows(6))
    assert found["status"][:6].tolist() == [Status.DEGRADED if key == 3 else Status.OK for key in range(6)]
    np.testing.assert_array_equal(np.delete(found["price"][:6], 3, 0), np.delete(expected["price"][:6], 3, 0))
