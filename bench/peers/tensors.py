"""What a peer is sent and what it answers: one vector's ready inputs, and all that the models said, as plain bytes.

Owns both layouts; used by the peers' servers and by their load. What must stay true: an answer has every number that
the engine's prediction is made from: moves, chances, patterns, margins, SHAP values, the stacker's opinion.
"""

from functools import cache
from pathlib import Path

import numpy as np

from bench.load import HISTORY, MINUTE_NS, SYMBOLS, Prices
from bench.plain_features import Inputs, Window
from bench.plain_service import Models
from engine.contract.ml.feature_vectors_pb2 import FeatureVector

STORE = Path(__file__).resolve().parents[2] / "models"
ROWS, PATH, COLUMNS = (1, 50, 16), 64, 20


@cache
def models() -> Models:
    found = Models(STORE)
    found.open()
    return found


def packed(inputs: Inputs) -> np.ndarray:
    parts = (inputs.rows.ravel(), inputs.path, inputs.columns, [inputs.trend])
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def answer(sent: np.ndarray) -> np.ndarray:
    """All models over one vector's inputs, as `bench.plain_service` runs them; float32."""
    cuts = np.cumsum([ROWS[1] * ROWS[2], PATH, COLUMNS])
    rows, path, columns, trend = np.split(np.asarray(sent, np.float64), cuts)
    inputs = Inputs(1.0, 1.0, float(trend[0]), rows.astype(np.float32).reshape(ROWS), path, columns)
    (said,) = models().run([inputs])
    members = [1.0, *said.move.tolist(), *said.rise.tolist(), 1.0, *said.pattern.tolist(), 1.0, *said.margin.tolist()]
    final = models().decide([*members, inputs.trend])
    parts = (said.move, said.rise, said.pattern, said.margin, said.shares.ravel(), final)
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


def made_up(seed: int) -> list[np.ndarray]:
    """A full window of each symbol, packed."""
    found = []
    for symbol in SYMBOLS:
        prices = Prices(symbol, seed)
        vector = FeatureVector(symbol=symbol, timestamp_ns=(29_000_000 + HISTORY) * MINUTE_NS)
        vector.price_history.mid_prices.extend(prices.history)
        vector.price_features.bid = vector.price_features.ask = vector.price_features.mid_price = prices.next()
        found.append(packed(Window().see(vector)))
    return found
