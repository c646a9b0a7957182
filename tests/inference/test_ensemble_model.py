"""The ensemble's own model: what it decides, who is masked for it, and the vote that stands in."""

import numpy as np
import pytest

from engine.contract.names import Signal, Status, Tier
from engine.inference.batch import DIRECTION, ENSEMBLE, MASKED, MODEL, NOBODY, PATTERN, PRICE, SUBSTITUTE, Output
from engine.inference.models.stacker import FIRST_DIRECTION, FIRST_PATTERN, MEMBER_NAMES, MEMBERS, gather_members
from tests.inference.conftest import answer
from tests.inference.market import Market, walk, windows
from tests.inference.test_predictor import Broken, ids, minutes

COUNT = 120
ROLE_OF = {"advanced_lstm": "price", "cnn_patterns": "pattern", "xgboost_direction": "direction"}


@pytest.fixture
def stacker(predictor):
    return next(row for row, model in predictor.models.items() if model.role == ENSEMBLE)


def rows_of(predictor, role):
    return [row for row, model in predictor.models.items() if model.role == role]


def final(predictor, found):
    return predictor.versions["model_id"][found["final_version"]].decode()


def test_it_decides_for_enterprise_alone_and_is_its_last_contribution(predictor, stacker):
    free, pro, enterprise = (minutes(predictor, tier, COUNT)[-1] for tier in Tier)
    assert [final(predictor, each) for each in (free, pro, enterprise)] == ["vote", "vote", "ensemble_meta"]
    assert ids(predictor, enterprise)[-1] == "ensemble_meta"
    at = enterprise["contribution_count"] - 1
    assert (enterprise["weight"][at], enterprise["contribution_fallback"][at]) == (0.0, 0)
    assert enterprise["contribution_signal"][at] == enterprise["ensemble_signal"]
    assert enterprise["contribution_confidence"][at] == enterprise["ensemble_confidence"]


def test_its_chances_sum_to_one_and_give_signal_score_and_confidence(predictor, stacker):
    market = Market(tier=Tier.ENTERPRISE)
    market.minute(0, 0, 1.3, history=walk(np.random.default_rng(3), 240))
    answers = answer(predictor, market.slots(), 1, windows(1))[:1]
    sell, hold, buy = predictor._output.final[0]
    assert sell + hold + buy == pytest.approx(1.0, abs=1e-6)
    last = answers[-1]
    assert last["ensemble_score"] == pytest.approx(buy - sell, abs=1e-6)
    assert last["ensemble_confidence"] == pytest.approx(max(sell, hold, buy), abs=1e-6)
    assert last["ensemble_signal"] == [Signal.SELL, Signal.HOLD, Signal.BUY][int(np.argmax([sell, hold, buy]))]


def test_failing_ensemble_model_leaves_the_decision_to_the_vote_marked_and_degraded(predictor, stacker):
    voted = minutes(predictor, Tier.PRO, COUNT)[-1]
    predictor.models[stacker] = Broken(predictor.models[stacker], lambda slots, output: 1 / 0)
    last = minutes(predictor, Tier.ENTERPRISE, COUNT)[-1]
    assert (final(predictor, last), last["status"]) == ("vote", Status.DEGRADED)
    assert ids(predictor, last)[-1] == "vote"
    assert last["contribution_fallback"][last["contribution_count"] - 1] == 1
    for name in ("ensemble_signal", "ensemble_score", "ensemble_confidence"):
        assert last[name] == voted[name]


@pytest.mark.parametrize("numbers", [(0.5, 0.5, 0.5), (np.nan, 0.5, 0.5), (-0.1, 0.6, 0.5)])
def test_ensemble_chances_that_are_none_are_not_used(predictor, stacker, numbers):
    def spoil(slots, output):
        output.final[slots] = numbers

    predictor.models[stacker] = Broken(predictor.models[stacker], spoil)
    last = minutes(predictor, Tier.ENTERPRISE, COUNT)[-1]
    assert (final(predictor, last), last["status"]) == ("vote", Status.DEGRADED)


@pytest.mark.parametrize("role", [PRICE, PATTERN, DIRECTION])
@pytest.mark.parametrize("tier", list(Tier))
def test_missing_member_is_stood_in_for_and_the_others_decide(predictor, role, tier):
    for row in rows_of(predictor, role):
        predictor.models[row] = Broken(predictor.models[row], lambda slots, output: 1 / 0)
    last = minutes(predictor, tier, COUNT)[-1]
    concerned = role != DIRECTION or tier != Tier.FREE
    if concerned:
        assert last["status"] == Status.DEGRADED
        assert ids(predictor, last).count("baseline") == 1
    assert final(predictor, last) != "baseline"
    assert last["weight"].sum() == pytest.approx(1.0, abs=1e-6)
    assert 0.0 < last["ensemble_confidence"] <= 1.0


def test_with_no_member_left_the_baseline_decides_not_an_ensemble_of_nobody(predictor, stacker):
    for role in (PRICE, PATTERN, DIRECTION):
        for row in rows_of(predictor, role):
            del predictor.models[row]
    last = minutes(predictor, Tier.ENTERPRISE, COUNT)[-1]
    assert (final(predictor, last), last["ensemble_signal"]) == ("baseline", Signal.HOLD)
    assert last["status"] == Status.DEGRADED


def test_warming_members_are_masked_and_the_ensemble_answers_from_the_first_vector(predictor, stacker):
    answers = minutes(predictor, Tier.ENTERPRISE, 70)
    assert [final(predictor, each) for each in (answers[0], answers[30], answers[55])] == ["ensemble_meta"] * 3
    assert answers["status"][63] == Status.WARMING
    assert answers["status"][64] != Status.WARMING
    assert "xgboost_direction" in ids(predictor, answers[0])
    assert len(ids(predictor, answers[0])) == 2


def test_answers_do_not_depend_on_who_else_is_in_the_microbatch(predictor, stacker):
    market = Market()
    for key in range(24):
        history = walk(np.random.default_rng(key), (0, 10, 55, 240)[key % 4] or 1)
        market.minute(key, 0, 1.5, history=history, tier=1 + key % 3)
    slots = market.slots()
    together = answer(predictor, slots, 24, windows(24))[:24]
    alone = answer(predictor, slots, 24, windows(24), largest=1)[:24]
    assert together.tobytes() == alone.tobytes()


def test_whoever_did_not_answer_is_nil_in_the_ensembles_row_whatever_stands_in_its_place():
    row = np.full(MEMBERS, 9.0, "f4")
    output = Output(1)
    for numbers in (output.move, output.rise, output.pattern, output.direction):
        numbers[:] = 0.7
    for who in (MASKED, NOBODY):
        output.who[:] = who
        gather_members(output.records[0], np.nan, row)
        assert not row.any()
    output.who[:] = MODEL, SUBSTITUTE, MODEL, 0
    gather_members(output.records[0], 3.0, row)
    masks = [MEMBER_NAMES.index(name) for name in ("price", "pattern", "direction")]
    assert masks == [0, FIRST_PATTERN - 1, FIRST_DIRECTION - 1]
    assert row[masks].tolist() == [1.0, 1.0, 1.0]
    assert row[1:9].tolist() == pytest.approx([0.7] * 4 + [0.2] * 4)
    assert row[-1] == 3.0
