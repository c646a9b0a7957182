"""Golden rows: raw messages, and what a version must make of them.

Owns their format and their recomputation; run by workers at load, and by training, which writes them.
Reads a version's `golden.json`; writes nothing but the microbatch's arrays. What must stay true: a
version whose answers to its own golden rows are off does not answer at all; the messages take the same
way as live ones, through a cold window and the live kernels.

    {"tolerance": 1e-05,
     "rows": [{"message": <base64 of an ml.v1.FeatureVectorBatch with one vector>, "expected": {"move": [...], ...}},
              {"members": [...], "expected": {"final": [...]}}]}

An ensemble's rows hold what its members said instead of a message, because the members' versions are
not its own. The tolerance is absolute, of numbers that are chances or medians in standard deviations:
float32 sums in another order differ by 1e-6, so 1e-5 lets another processor pass and no other weights.
"""

import base64
import binascii
import json
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.errors import ModelError
from engine.inference import batch as arrays
from engine.inference.batch import (
    DIRECTION,
    ENSEMBLE,
    PATTERN,
    PREDICT,
    PRICE,
    Batch,
    Output,
    entry_dtype,
    request_dtype,
)
from engine.inference.windows import BOUNDS, enter
from engine.registry.manifest import Manifest, read_golden
from fastpath import layout

TOLERANCE = 1e-5
ENTERPRISE = 3  # the plan whose models see everything
OUTPUTS = {PRICE: ("move", "rise"), PATTERN: ("pattern",), DIRECTION: ("direction",), ENSEMBLE: ("final",)}
INDICATORS = ("sma_20", "ema_12", "ema_26", "macd", "rsi_14", "atr")


def fill_slot(slot: Any, vector: FeatureVector) -> None:
    """The slot that ingress would write for a key's first vector."""
    prices, technical = vector.price_features, vector.technical_indicators
    history = vector.price_history.mid_prices[-layout.history_max :]
    given = {
        field.name: value
        for part in (technical.trend, technical.momentum, technical.volatility)
        for field, value in part.ListFields()
    }
    spread = prices.ask - prices.bid
    slot["generation"], slot["opens"], slot["tier"] = 1, 1, ENTERPRISE
    slot["step"], slot["depth"], slot["history_count"] = layout.history_max, len(history), len(history)
    slot["history"][: len(history)] = history
    slot["event_ns"], slot["minute"] = vector.timestamp_ns, vector.timestamp_ns // 60_000_000_000
    slot["bid"], slot["ask"], slot["mid"] = prices.bid, prices.ask, 0.5 * (prices.bid + prices.ask)
    slot["spread"] = spread if spread > 0.0 else np.nan
    slot["indicators"] = [given.get(name, np.nan) for name in INDICATORS]
    for name, count, values in (
        ("correlations", "correlation_count", vector.cross_asset.correlation_scores),
        ("extra", "extra_count", vector.extra),
    ):
        slot[count] = len(values)
        slot[name][: len(values)] = values


def take(message: bytes, batch: Batch) -> None:
    """A message's vector into row 0 of the microbatch."""
    slots, windows = np.zeros(1, request_dtype), np.zeros((1, layout.window), entry_dtype)
    fill_slot(slots[0], FeatureVectorBatch.FromString(message).feature_vectors[0])
    plans = np.ones(layout.plans_max, "u1")
    bounds = np.zeros((layout.plans_max, BOUNDS, 2))
    enter(slots, 0, 0, 1, np.array([PREDICT], "u1"), windows, plans, bounds, batch.records)


def outputs_of(model: Any, row: dict[str, Any], batch: Batch, output: Output) -> dict[str, np.ndarray]:
    """What a loaded model makes of one row."""
    if "members" in row:
        model.run_members(np.array(row["members"], "f4"), output.final[0])
    else:
        take(base64.b64decode(row["message"], validate=True), batch)
        model.run([0], batch, output, np.zeros(layout.plans_max, "u1"))
    return {name: getattr(output, name)[0].copy() for name in OUTPUTS[model.role]}


def check(model: Any) -> None:
    """ModelError where a version's answers to its golden rows are not those that its folder names."""
    manifest: Manifest = model.manifest
    path = manifest.folder / manifest.golden
    batch, output = arrays.new_batch(1), arrays.Output(1)
    try:
        golden = json.loads(read_golden(manifest))
        tolerance, rows = float(golden["tolerance"]), list(golden["rows"])
        if not rows or not 0.0 <= tolerance <= 1e-2:
            raise ValueError(f"{len(rows)} rows and a tolerance of {tolerance}")
        for number, row in enumerate(rows, 1):
            found = outputs_of(model, row, batch, output)
            for name, values in found.items():
                expected = np.array(row["expected"][name], "f8")
                worst = np.abs(expected - values).max() if expected.shape == values.shape else np.inf
                if not worst <= tolerance:
                    raise ModelError(
                        f"{path}: row {number}: {name}: expected {expected.tolist()}, found "
                        f"{values.tolist()}, more than {tolerance:g} apart; the artefact, the "
                        "features or the runtime are not those that it was made with: train it again or restore them"
                    )
    except (ValueError, KeyError, TypeError, IndexError, binascii.Error, DecodeError) as error:
        raise ModelError(
            f"{path}: expected golden rows with messages and what they must give, found "
            f"{type(error).__name__}: {error}; make them again with `python -m engine.training.golden`"
        ) from error
