"""Indicators against formulas written another way."""

import doctest

import numpy as np
import pytest

from engine.client import indicators
from engine.contract.ml.feature_vectors_pb2 import TechnicalIndicators


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(indicators).failed == 0


@pytest.mark.parametrize("seed", range(3))
def test_against_closed_forms(seed: int) -> None:
    mids = np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 1e-4, 240)))
    message = TechnicalIndicators()
    indicators.fill(message, mids.tolist())

    def ema(count: int) -> float:
        weight = 2 / (count + 1)
        weights = weight * (1 - weight) ** np.arange(len(mids) - 1, -1, -1)
        weights[0] /= weight
        return float(weights @ mids)

    def wilder(values: np.ndarray) -> float:
        weights = (1 - 1 / 14) ** np.arange(len(values) - 15, -1, -1) / 14
        return float((1 - 1 / 14) ** (len(values) - 14) * values[:14].mean() + weights @ values[14:])

    moves = np.diff(mids)
    gain, loss = wilder(np.maximum(moves, 0)), wilder(np.maximum(-moves, 0))
    assert message.trend.sma_20 == pytest.approx(mids[-20:].mean(), rel=1e-12)
    assert message.trend.ema_12 == pytest.approx(ema(12), rel=1e-12)
    assert message.trend.ema_26 == pytest.approx(ema(26), rel=1e-12)
    assert message.trend.macd == pytest.approx(ema(12) - ema(26), abs=1e-12)
    assert message.momentum.rsi_14 == pytest.approx(100 - 100 / (1 + gain / loss), rel=1e-9)
    assert message.volatility.atr == pytest.approx(wilder(np.abs(moves)), rel=1e-9)


def test_what_the_minutes_are_too_few_for_is_left_out() -> None:
    message = TechnicalIndicators()
    indicators.fill(message, [1.0] * 14)
    assert message.trend.HasField("ema_12")
    assert not message.trend.HasField("ema_26")
    assert not message.trend.HasField("macd")
    assert not message.trend.HasField("sma_20")
    assert not message.momentum.HasField("rsi_14")  # 14 moves need 15 mids
    indicators.fill(message, [1.0] * 15)
    assert message.momentum.rsi_14 == 50.0
    assert message.volatility.atr == 0.0
