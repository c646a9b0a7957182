"""What a simulated market's future holds, given everything about its present.

Owns the true chances and quantiles of the mid that will be quoted; run by `python -m engine.training`
and by tests. Reads a `Market` with its hidden states. What must stay true: these are chances of quotes,
with their ticks, spreads and flicker, not of the efficient price behind them; where a shock falls
between now and then, nobody could have known, and the truth is NaN.

The sum of a GARCH's steps has no closed form. Its distribution depends on the present variance alone, so
it is drawn once for some variances, with the same draws for each, and interpolated between them; in units
of the present volatility it changes little from one to the next. Ticks and spreads are then exact sums.

`futures` draws quoted paths instead: slower, an independent check, and good for any question about a path.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from engine.training.data import LABEL_MINUTES, labels
from engine.training.simulate import Law, Market, draw_jumps, quote, scale_at, walked

DRAWS = 1 << 15  # paths for each variance; each also counts with its sign turned
NODES = 16  # variances
SEED = 20260203
REACH = 7.0  # of the axis, in asinh of standard deviations: more than 500 of them
POINTS = 2241  # on the axis
LEVELS = (0.05, 0.5, 0.95)


class Truth(NamedTuple):
    """One row a minute of the market."""

    moves: np.ndarray  # (n,) chance that the mid differs from the present one
    rise: np.ndarray  # (n,) chance that it is above, given that it differs
    quantiles: np.ndarray  # (n, levels) of the mid; the smallest that is not exceeded with at least that chance


class Distribution(NamedTuple):
    """Of the sum of the steps and jumps to come, for some present volatilities."""

    log_sigma: np.ndarray  # (nodes,) of the next step, bp
    below: np.ndarray  # (nodes, points) on the axis asinh(sum / (sigma sqrt(h)))


def carried(law: Law, horizon: int) -> float:
    """How much of the last step comes again within the horizon.

    >>> carried(Law(momentum=0.5), 3)
    0.875
    """
    return math.fsum(law.momentum**k for k in range(1, horizon + 1))


@lru_cache(maxsize=32)
def distribution(law: Law, horizon: int, lowest: float, highest: float) -> Distribution:
    """For volatilities from `lowest` to `highest` bp; drift, shock and what is carried over are left out."""
    rng = np.random.default_rng(SEED)
    z = rng.standard_normal((horizon, DRAWS))
    jump = draw_jumps(law, rng, (horizon, DRAWS))
    plain, still = law._replace(drift=0.0), np.zeros(DRAWS)
    axis = np.sinh(np.linspace(-REACH, REACH, POINTS))
    nodes = np.geomspace(lowest, highest, NODES) if highest > lowest else np.array([lowest])
    below = np.empty((len(nodes), POINTS))
    for n, sigma in enumerate(nodes):
        moves = walked(plain, np.full(DRAWS, sigma**2), still, z, jump, np.ones(horizon))[0]
        total = np.sort(moves.sum(axis=0)) / (sigma * math.sqrt(horizon))
        ahead = np.interp(axis, total, (np.arange(DRAWS) + 0.5) / DRAWS, left=0.0, right=1.0)
        below[n] = (ahead + 1.0 - ahead[::-1]) / 2.0  # a sum and its opposite are equally likely
    return Distribution(np.log(nodes), below)


def below(given: Distribution, total: np.ndarray, sigma: np.ndarray, horizon: int) -> np.ndarray:
    """Chance that the sum is at most `total` bp, interpolated in both directions; arrays broadcast."""
    place = (np.arcsinh(total / (sigma * math.sqrt(horizon))) + REACH) * (POINTS - 1) / (2.0 * REACH)
    place = np.clip(place, 0.0, POINTS - 1.000001)
    column = place.astype("i8")
    right = place - column
    if len(given.log_sigma) == 1:
        return given.below[0][column] * (1.0 - right) + given.below[0][column + 1] * right
    nodes = given.log_sigma
    row = np.clip((np.log(sigma) - nodes[0]) / (nodes[1] - nodes[0]), 0.0, len(nodes) - 1.000001)
    node = row.astype("i8")
    up = row - node
    low = given.below[node, column] * (1.0 - right) + given.below[node, column + 1] * right
    high = given.below[node + 1, column] * (1.0 - right) + given.below[node + 1, column + 1] * right
    return low * (1.0 - up) + high * up


class _Now(NamedTuple):
    """The states that a row's future depends on."""

    log_price: np.ndarray
    sigma: np.ndarray  # of the next step, bp
    expected: np.ndarray  # bp, of the whole horizon
    scale: np.ndarray


def _at_most(law: Law, given: Distribution, now: _Now, half_ticks: np.ndarray, horizon: int) -> np.ndarray:
    """Chance that the mid quoted then is at most so many half ticks."""
    out = np.zeros(len(half_ticks))
    for spread, chance in zip(law.spreads, law.spread_chances, strict=True):
        bid = (half_ticks - spread) // 2
        for side in (-0.5, 0.5) if law.bounce > 0.0 else (0.0,):
            edge = law.tick * (bid + 0.5 + spread / 2.0 - side * law.bounce * spread)
            move = 1e4 * (np.log(np.maximum(edge, law.tick * 1e-6)) - now.log_price) - now.expected
            weight = chance * (0.5 if law.bounce > 0.0 else 1.0)
            out += weight * below(given, move / now.scale, now.sigma, horizon)
    return out


def _quantile(law: Law, given: Distribution, now: _Now, level: float, horizon: int) -> np.ndarray:
    """(n,) half ticks, found by halving."""
    reach = 1e-4 * (20.0 * float((now.sigma * now.scale).max()) + 6.0 * law.jump * law.shock) * math.sqrt(horizon)
    centre = 2.0 * np.exp(now.log_price) / law.tick
    low, high = np.floor(centre * math.exp(-reach)).astype("i8"), np.ceil(centre * math.exp(reach)).astype("i8")
    while (high - low > 1).any():
        middle = (low + high) // 2
        reached = _at_most(law, given, now, middle, horizon) >= level
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


def truth(market: Market, horizon: int, levels: tuple[float, ...] = LEVELS) -> Truth:
    """For each minute's close, of the close `horizon` minutes later."""
    law, minutes = market.law, np.arange(len(market.quoted))
    sigma = np.sqrt(market.variance)
    scale = scale_at(law, minutes + 1)
    expected = carried(law, horizon) * market.step * scale + law.drift * horizon
    now = _Now(market.log_price, sigma, expected, scale)
    plain = law._replace(shock=1.0, shock_minute=0, price=1.0, missing=0.0)  # one distribution for all of these
    given = distribution(plain, horizon, float(sigma.min()), float(sigma.max()))
    present = np.rint(2.0 * market.mid / law.tick).astype("i8")
    fall = _at_most(law, given, now, present - 1, horizon)
    above = 1.0 - _at_most(law, given, now, present, horizon)
    quantiles = np.stack([_quantile(law, given, now, level, horizon) for level in levels], axis=1) * law.tick / 2.0
    unknown = scale_at(law, minutes + horizon) != scale
    moves, rise = fall + above, above / (fall + above)
    for each in (moves, rise, quantiles):
        each[unknown] = np.nan
    return Truth(moves, rise, quantiles)


def futures(market: Market, at: np.ndarray, minutes: int, paths: int, seed: int) -> np.ndarray:
    """(rows, paths, minutes) mids that may be quoted after the closes of the minutes numbered `at`."""
    law, rng = market.law, np.random.default_rng(seed)
    variance, step = np.repeat(market.variance[at], paths), np.repeat(market.step[at], paths)
    shape = (minutes, len(at) * paths)
    z, jump = rng.standard_normal(shape), draw_jumps(law, rng, shape)
    out = np.empty((len(at), paths, minutes))
    for n, row in enumerate(at):
        own = slice(n * paths, (n + 1) * paths)
        scale = scale_at(law, row + 1 + np.arange(minutes))
        moves = walked(law, variance[own], step[own], z[:, own].copy(), jump[:, own].copy(), scale)[0]
        bid, spread = quote(law, rng, np.exp(market.log_price[row] + 1e-4 * np.cumsum(moves, axis=0)))
        out[n] = ((bid + spread / 2.0) * law.tick).T
    return out


def touches(market: Market, at: np.ndarray, sigma: np.ndarray, paths: int, seed: int) -> np.ndarray:
    """(rows, 3) chances of the direction's label: sell, hold, buy, from drawn futures.

    sigma: (rows,) bp, the volatility estimate that sets each row's barriers, as a forecaster had it. Minutes without
    a quote touch nothing.
    """
    mid = np.repeat(market.mid[at], paths)
    ahead = futures(market, at, LABEL_MINUTES, paths, seed).reshape(len(mid), LABEL_MINUTES)
    quoted = np.random.default_rng(seed + 1).random(ahead.shape) >= market.law.missing
    before = mid
    for minute in range(LABEL_MINUTES):
        before = ahead[:, minute] = np.where(quoted[:, minute], ahead[:, minute], before)
    label = labels(mid, np.repeat(sigma, paths), ahead).reshape(len(at), paths)
    return np.stack([(label == each).mean(axis=1) for each in range(3)], axis=1)
