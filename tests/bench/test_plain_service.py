"""The plain service computes what the engine computes: the same models see the same numbers."""

import random

import numpy as np
import pytest

from bench.load import HISTORY, MINUTE_NS, Prices
from bench.plain_answer import predict
from bench.plain_features import Window, image_of
from bench.plain_service import Models
from bench.servers import ROOT
from engine import limits
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.inference.batch import PREDICT, entry_dtype, new_batch, request_dtype
from engine.inference.image import draw_fine
from engine.inference.windows import BOUNDS, enter
from fastpath import layout

FIRST_NS = 1_700_000_000 // 60 * MINUTE_NS
SCORES = (0.3, -0.2, 0.7)


def vectors(seed: int, history: int) -> list[FeatureVector]:
    """Several in a minute, then minutes in a row, then empty ones, then a hole."""
    prices, seconds = Prices("EURUSD", seed), [0, 20, 40]
    seconds += [60 + 30 * n for n in range(12)]
    seconds += [seconds[-1] + 60 * n for n in (3, 4, 10, 30, 31)]
    found = []
    for n, second in enumerate(seconds):
        vector = FeatureVector(symbol="EURUSD", timestamp_ns=FIRST_NS + second * 1_000_000_000)
        mid, half = prices.next(), 0.0 if n == 5 else 1e-5
        vector.price_features.bid, vector.price_features.ask = mid - half, mid + half
        vector.cross_asset.correlation_scores.extend(SCORES)
        if n == 0:
            vector.price_history.mid_prices.extend(prices.history[HISTORY - history :])
        found.append(vector)
    return found


def slots_of(made: list[FeatureVector]) -> np.ndarray:
    """As ingress decides them."""
    slots = np.zeros(32, request_dtype)
    slots["generation"], slots["tier"], slots["indicators"] = 1, 3, np.nan
    history = made[0].price_history.mid_prices
    step, depth, minute = limits.FIRST_STEP, len(history), made[0].timestamp_ns // MINUTE_NS
    for n, (slot, vector) in enumerate(zip(slots, made, strict=False)):
        now = vector.timestamp_ns // MINUTE_NS
        slot["kind"], slot["event_ns"], slot["minute"], slot["opens"] = (
            1,
            vector.timestamp_ns,
            now,
            n == 0 or now > minute,
        )
        if now > minute:
            empty = now - minute - 1
            slot["skipped"] = empty if empty <= limits.HOLE_STEPS_MAX else 1
            step += 1 + int(slot["skipped"])
            depth = min(depth + 1 + int(slot["skipped"]), layout.history_max)
        minute = now
        slot["step"], slot["depth"] = step, depth
        quote = vector.price_features
        slot["mid"], spread = (quote.bid + quote.ask) / 2.0, quote.ask - quote.bid
        slot["spread"] = spread if spread > 0.0 else np.nan
        slot["correlation_count"] = len(SCORES)
        slot["correlations"][: len(SCORES)] = SCORES
    slots[0]["history_count"] = len(history)
    slots[0]["history"][: len(history)] = history
    return slots


# With a window that is already full the engine fills empty minutes from a few minutes less: none are sent then.
@pytest.mark.parametrize(("history", "count"), [(HISTORY, 15), (200, 20), (70, 20)])
def test_models_see_the_same_numbers_as_in_the_engine(history, count):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    made = vectors(seed, history)[:count]
    batch, windows = new_batch(32), np.zeros((1, layout.window), entry_dtype)
    verdicts, bounds = np.full(32, PREDICT, "u1"), np.zeros((4, BOUNDS, 2))
    window = Window()
    slots = slots_of(made)
    for n, vector in enumerate(made):  # one by one: a microbatch takes fewer steps of a key than this
        enter(slots, 31, n, 1, verdicts, windows, np.ones(4, "u1"), bounds, batch.records)
        plain = window.see(vector)
        np.testing.assert_allclose(plain.rows[0], batch.rows[0], rtol=1e-5, atol=1e-5, err_msg=f"vector {n}")
        np.testing.assert_allclose(plain.path, batch.path[0], rtol=1e-12)
        np.testing.assert_allclose(plain.columns, batch.columns[0], rtol=1e-5, atol=1e-5)
        assert plain.sigma == pytest.approx(float(batch.entry["sigma"][0]), rel=1e-9)
        image = np.zeros((2, 64, 64), "f4")
        draw_fine(batch.path[0], image)
        np.testing.assert_allclose(image_of(plain.path)[0], image, atol=1e-5)


def test_answer_has_every_part():
    models, window = Models(ROOT / "models"), Window()
    models.open()
    made = vectors(1, HISTORY)
    inputs = [window.see(vector) for vector in made]
    for vector, given, said in zip(made, inputs, models.run(inputs), strict=True):
        found = predict(vector, given, said, models)
        assert [each.horizon_minutes for each in found.price.horizon_predictions] == [1, 5, 15, 60]
        assert all(e.lower_price <= e.predicted_price <= e.upper_price for e in found.price.horizon_predictions)
        chances = found.direction
        total = chances.sell_probability + chances.hold_probability + chances.buy_probability
        assert total == pytest.approx(1.0, abs=1e-6)
        assert [each.feature for each in chances.feature_importance] == [*models.direction.features, "bias"]
        assert sum(each.weight for each in found.ensemble.contributions) == pytest.approx(1.0, abs=1e-6)
        assert found.predicted_value == found.price.horizon_predictions[0].predicted_price
