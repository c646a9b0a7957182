"""What the plain service makes of its models' outputs: the contract's predictions, field by field.

Owns nothing; pure functions. The arithmetic is that of `engine.inference.ensemble` without the
intervals' following of outcomes: their multipliers stay the manifest's. What must stay true: an answer
has every part that the engine's has, so that both encode, send and are read at the same size.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bench.plain_features import Inputs
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.ml.ml_predictions_pb2 import (
    FeatureImportance,
    HorizonPrediction,
    ModelContribution,
    Prediction,
    PredictionStatus,
)
from engine.contract.ml.model_metadata_pb2 import ModelInfo
from engine.contract.names import HORIZON_MINUTES
from engine.contract.trading.market_patterns_pb2 import PatternDetection, Signal
from engine.inference.geometry import scale, shape_of, smoothed, touch_chance, turns

Array = npt.NDArray[np.float32]

SHOWN = 0.3
BASE_RATES = (0.3, 0.4, 0.3)  # sell, hold, buy
PATTERNS = 7
TREND_FULL = 4.0
MOVE_MAX, TREND_MAX = 5.0, 8.0  # of what the stacker is shown
SIGNALS = (Signal.SELL, Signal.HOLD, Signal.BUY)


@dataclass(frozen=True)
class Version:
    """What a model's manifest says that an answer needs."""

    path: Path
    info: ModelInfo
    features: tuple[str, ...]
    weight: float
    calibration: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Version":
        manifest = tomllib.loads((folder / "model.toml").read_text())
        info = ModelInfo(
            model_id=manifest["id"],
            version=manifest["version"],
            kind=manifest["kind"].upper(),
            sha256=manifest["artefact"]["sha256"],
        )
        return cls(
            folder / manifest["artefact"]["file"],
            info,
            tuple(manifest["features"]),
            manifest["weight"],
            manifest["calibration"],
        )


class Outputs(NamedTuple):
    """What the models said of one vector."""

    move: Array  # (4,) in sigma sqrt(h)
    rise: Array  # (4,)
    pattern: Array  # (7,)
    margin: Array  # (3,)
    shares: Array  # (3, features + 1)


class Models(Protocol):
    """The four versions, and the last one's opinion of what the others said."""

    price: Version
    pattern: Version
    direction: Version
    ensemble: Version

    def decide(self, members: list[float]) -> list[float]: ...


def predict(vector: FeatureVector, inputs: Inputs, outputs: Outputs, models: Models) -> Prediction:
    found = Prediction(symbol=vector.symbol, timestamp_ns=vector.timestamp_ns, status=PredictionStatus.OK)
    _price(found, inputs, outputs, models.price)
    _pattern(found, inputs, outputs, models.pattern)
    chances = _direction(found, outputs, models.direction)
    _contributions(found, outputs, chances, models)
    _decision(found, inputs, outputs, chances, models)
    found.trend.direction = Signal.HOLD if inputs.trend == 0.0 else Signal.BUY if inputs.trend > 0.0 else Signal.SELL
    found.trend.strength = min(abs(inputs.trend) / TREND_FULL, 1.0)
    return found


def _price(found: Prediction, inputs: Inputs, outputs: Outputs, version: Version) -> None:
    found.price.symbol, found.price.base_price = found.symbol, inputs.mid
    for minutes, move, rise, q in zip(
        HORIZON_MINUTES, outputs.move.tolist(), outputs.rise.tolist(), version.calibration["q"], strict=True
    ):
        deviation = inputs.sigma * math.sqrt(minutes) * 1e-4
        value, half = inputs.mid * math.exp(move * deviation), q * deviation * inputs.mid
        found.price.horizon_predictions.append(
            HorizonPrediction(
                horizon_minutes=minutes,
                predicted_price=value,
                confidence=max(rise, 1.0 - rise),
                direction=Signal.BUY if rise > 0.5 else Signal.SELL,
                lower_price=max(value - half, 0.0),
                upper_price=value + half,
            )
        )
    found.predicted_value = found.price.horizon_predictions[0].predicted_price


def _pattern(found: Prediction, inputs: Inputs, outputs: Outputs, version: Version) -> None:
    pattern, known = found.pattern, version.calibration
    pattern.symbol, pattern.analysis_timestamp_ns, pattern.overall_signal = (
        found.symbol,
        found.timestamp_ns,
        Signal.HOLD,
    )
    ways, heights, spans = shapes_of(inputs.path)
    for kind in np.argsort(-outputs.pattern, kind="stable").tolist():
        if outputs.pattern[kind] <= SHOWN:
            break
        way, height, span = ways[kind], heights[kind], spans[kind]
        chance = touch_chance(
            known["touch_bias"][kind], known["touch_slope"][0], height, span, inputs.mid, inputs.sigma
        )
        pattern.detected_patterns.append(
            PatternDetection(
                pattern_type=kind + 1,
                probability=float(outputs.pattern[kind]),
                confidence=chance,
                target_price=max(inputs.mid + way * height, 0.0),
                expected_completion_minutes=span,
            )
        )
        if len(pattern.detected_patterns) == 1:
            pattern.overall_signal = Signal.BUY if way > 0 else Signal.SELL
            pattern.overall_confidence = chance


def shapes_of(path: npt.NDArray[np.float64]) -> tuple[list[int], list[float], list[float]]:
    """Each pattern's way, height in price and span in minutes; the geometry is compiled here too, as anyone would."""
    level, smooth, places = np.empty(len(path)), np.empty(len(path)), np.empty(len(path), np.int64)
    scale(path, level)
    smoothed(level, smooth)
    count, reach = turns(smooth, places), float(path.max() - path.min())
    found = [shape_of(kind, level, smooth, places, count) for kind in range(PATTERNS)]
    ways, heights, spans = zip(*found, strict=True)
    return list(ways), [height * reach for height in heights], list(spans)


def _direction(found: Prediction, outputs: Outputs, version: Version) -> list[float]:
    """Also the chances of sell, hold and buy."""
    raised = np.exp(
        version.calibration["slope"][0] * outputs.margin.astype(np.float64) + np.array(version.calibration["bias"])
    )
    chances: list[float] = (raised / raised.sum()).tolist()
    direction, primary = found.direction, int(np.argmax(chances))
    direction.symbol = found.symbol
    direction.sell_probability, direction.hold_probability, direction.buy_probability = chances
    direction.primary_direction, direction.confidence = SIGNALS[primary], chances[primary]
    direction.feature_importance.extend(
        FeatureImportance(feature=name, contribution=share)
        for name, share in zip((*version.features, "bias"), outputs.shares[primary].tolist(), strict=True)
    )
    return chances


def _contributions(found: Prediction, outputs: Outputs, chances: list[float], models: Models) -> None:
    """Each member's chances on the 15-minute label, and its weight."""
    rise, (_, hold, _) = float(outputs.rise[2]), BASE_RATES
    told = found.pattern.overall_signal
    members = (
        (models.price, ((1.0 - rise) * (1.0 - hold), hold, rise * (1.0 - hold))),
        (models.pattern, tuple(models.pattern.calibration["label_rates"][3 * (told - 1) : 3 * told])),
        (models.direction, tuple(chances)),
    )
    weights = sum(version.weight for version, _ in members)
    for version, each in members:
        signal = each.index(max(each))
        found.ensemble.contributions.append(
            ModelContribution(
                model=version.info, weight=version.weight / weights, signal=SIGNALS[signal], confidence=each[signal]
            )
        )


def _decision(found: Prediction, inputs: Inputs, outputs: Outputs, chances: list[float], models: Models) -> None:
    """The stacker's, over all that the members said."""
    said = (
        [1.0, *np.clip(outputs.move, -MOVE_MAX, MOVE_MAX).tolist(), *(outputs.rise - 0.5).tolist()],
        [1.0, *outputs.pattern.tolist()],
        [1.0, *chances],
        [min(max(inputs.trend, -TREND_MAX), TREND_MAX)],
    )
    final = models.decide([number for part in said for number in part])
    decided = final.index(max(final))
    ensemble = found.ensemble
    ensemble.signal, ensemble.confidence, ensemble.score = SIGNALS[decided], final[decided], final[2] - final[0]
    ensemble.contributions.append(
        ModelContribution(model=models.ensemble.info, signal=ensemble.signal, confidence=ensemble.confidence)
    )
    found.confidence = ensemble.confidence
    found.model_info.CopyFrom(models.ensemble.info)
