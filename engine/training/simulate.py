"""Markets whose truth is known: one-minute quotes drawn from a law that is written down.

Owns the law and the drawing; run by `python -m engine.training` and by tests; what may come next, and
how likely, is in `engine.training.truth`. Reads nothing but a seed. What must stay true: the same law,
length and seed give the same market; quotes come in the columns of `data/fx_m1`, so that the loader
takes them as if they were real.

An efficient price moves by a GARCH(1,1) of one-minute steps, with jumps apart from it, and with a share
of its last move again where a law says so (`momentum`: a skill that can be had). Quotes stand around it
on whole ticks; they flicker by a share of half the spread, up or down at random, which looks like moves
that reverse (bid-ask bounce). Some minutes have no quote.

References
----------
Bollerslev, Generalized autoregressive conditional heteroskedasticity, Journal of Econometrics 31, 1986.
Merton, Option pricing when underlying stock returns are discontinuous, JFE 3, 1976: jumps.
Roll, A simple implicit measure of the effective bid-ask spread, Journal of Finance 39, 1984: bounce.
"""

import csv
import gzip
import io
import math
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from engine.training.data import Bars

QUARTERS = 4  # quotes drawn in a minute; the last is its close
OPEN, HIGH, LOW, CLOSE = range(4)
FIRST_MINUTE = 23_000_000
COLUMNS = ["ts_ms", "bid_open", "bid_high", "bid_low", "bid_close", "ask_open", "ask_high", "ask_low", "ask_close"]


class Law(NamedTuple):
    """Moves are in basis points, spreads in ticks."""

    volatility: float = 1.5  # of the steps between jumps, in bp a square root of a minute, in the long run
    alpha: float = 0.0  # what the last step's square has in the next variance
    beta: float = 0.0  # what the last variance has
    jump_rate: float = 0.0  # chance of one in a minute
    jump: float = 0.0  # standard deviation, bp
    momentum: float = 0.0  # share of the last step that comes again in the next one
    drift: float = 0.0  # bp a minute
    price: float = 1.3  # at the beginning
    tick: float = 1e-5
    spreads: tuple[int, ...] = (10,)
    spread_chances: tuple[float, ...] = (1.0,)
    bounce: float = 0.0  # how far quotes flicker, as a share of half the spread
    missing: float = 0.0  # chance that a minute has no quote
    shock: float = 1.0  # moves are so many times larger ...
    shock_minute: int = 0  # ... from this minute on


def random_walk(volatility: float) -> Law:
    """Independent moves of one size and a fine tick: nothing to know but the volatility."""
    return Law(volatility=volatility, tick=1e-7, spreads=(100,))


GARCH = Law(alpha=0.06, beta=0.92, jump_rate=1 / 300, jump=8.0, missing=0.2)
FINE = GARCH._replace(tick=1e-5, spreads=(8, 10, 14), spread_chances=(0.3, 0.5, 0.2), bounce=0.3)  # 0.1 pip
COARSE = GARCH._replace(tick=1e-4, spreads=(1, 2, 3), spread_chances=(0.6, 0.3, 0.1), bounce=0.3)  # 1 pip
MARKETS = {"fine ticks": FINE, "coarse ticks": COARSE, "random walk": random_walk(1.5)}


class Market(NamedTuple):
    """One row a minute, quoted or not. States are of the minute's end, and no forecaster sees them."""

    law: Law
    quoted: np.ndarray  # (n,)
    bid: np.ndarray  # (n, 4): open, high, low, close
    ask: np.ndarray
    log_price: np.ndarray  # (n,) of the efficient price
    variance: np.ndarray  # (n,) of the next step, bp squared, before any shock
    step: np.ndarray  # (n,) the last step, bp, before any shock

    @property
    def minute(self) -> np.ndarray:
        return FIRST_MINUTE + np.arange(len(self.quoted))

    @property
    def mid(self) -> np.ndarray:
        """Of the closes, whether or not anyone saw them."""
        return (self.bid[:, CLOSE] + self.ask[:, CLOSE]) / 2.0

    def bars(self, symbol: str = "SIM") -> Bars:
        """What the loader would have read: minutes with a quote."""
        bid, ask = self.bid[self.quoted], self.ask[self.quoted]
        return Bars(symbol, self.minute[self.quoted], bid[:, CLOSE], ask[:, CLOSE], (bid + ask) / 2.0)


def long_run_variance(law: Law) -> float:
    return law.volatility**2


def scale_at(law: Law, minute: np.ndarray) -> np.ndarray:
    """How many times larger moves are in these minutes, counted from the market's first.

    >>> scale_at(Law(shock=3.0, shock_minute=2), np.arange(4)).tolist()
    [1.0, 1.0, 3.0, 3.0]
    """
    return np.where(np.asarray(minute) >= law.shock_minute, law.shock, 1.0)


def check(law: Law) -> None:
    """ValueError where a law says what cannot be."""
    if not (law.alpha >= 0.0 and law.beta >= 0.0 and law.alpha + law.beta < 1.0):
        raise ValueError(
            f"law: alpha and beta: expected at least 0 and together below 1, found {law.alpha} and {law.beta}; "
            "a variance that does not come back has no long run"
        )
    if len(law.spreads) != len(law.spread_chances) or not math.isclose(sum(law.spread_chances), 1.0):
        raise ValueError(
            f"law: spread_chances: expected one for each of the spreads {law.spreads}, adding up to 1, "
            f"found {law.spread_chances}; correct them"
        )


@numba.njit
def walk(variance, step, z, jump, scale, omega, alpha, beta, momentum, drift, moves, variances, steps):
    """(minutes, paths) of moves, and the state after each, from (paths,) of states and draws.

    The one place where a law's recursion stands: a market is one path of it, its truth is many.
    """
    for path in range(z.shape[1]):
        v, a = variance[path], step[path]
        for t in range(z.shape[0]):
            innovation = math.sqrt(v) * z[t, path]
            a = momentum * a + innovation
            v = omega + alpha * innovation * innovation + beta * v
            moves[t, path] = scale[t] * (a + jump[t, path]) + drift
            variances[t, path] = v
            steps[t, path] = a


def walked(
    law: Law, variance: np.ndarray, step: np.ndarray, z: np.ndarray, jump: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves, variances and steps, each (minutes, paths)."""
    moves, variances, steps = np.empty_like(z), np.empty_like(z), np.empty_like(z)
    omega = long_run_variance(law) * (1.0 - law.alpha - law.beta)
    walk(
        variance, step, z, jump, scale, omega, law.alpha, law.beta, law.momentum, law.drift, moves, variances, steps
    )  # fmt: skip
    return moves, variances, steps


def draw_jumps(law: Law, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < law.jump_rate, law.jump * rng.standard_normal(shape), 0.0)


def quote(law: Law, rng: np.random.Generator, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bid and spread in ticks around each efficient price."""
    spread = rng.choice(law.spreads, size=price.shape, p=law.spread_chances)
    flicker = law.bounce * rng.choice([-0.5, 0.5], size=price.shape) * spread
    bid = np.floor(price / law.tick + flicker - spread / 2.0 + 0.5).astype("i8")
    return bid, spread


def _within_minutes(
    law: Law, rng: np.random.Generator, z: np.ndarray, jump: np.ndarray, state: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """(n, 4) moves from the minute's begin to each of its quotes; the last is the whole minute's.

    z: (n, 4) draws that make up each minute's. state: variance and step before each minute.
    """
    variance, step = state
    part = np.arange(1, QUARTERS + 1) / QUARTERS
    diffusion = np.sqrt(variance)[:, None] * np.cumsum(z, axis=1) / math.sqrt(QUARTERS)
    jumped = jump[:, None] * (rng.integers(0, QUARTERS, len(z))[:, None] <= np.arange(QUARTERS))
    scale = scale_at(law, np.arange(len(z)))[:, None]
    return scale * (diffusion + law.momentum * step[:, None] * part + jumped) + law.drift * part


def draw(law: Law, minutes: int, seed: int) -> Market:
    """A market of so many minutes, from its long-run volatility on; prices in quote currency.

    >>> market = draw(COARSE, 1000, seed=7)
    >>> market.bars().minute[:5] - FIRST_MINUTE, int(market.quoted.sum())
    (array([0, 1, 2, 3, 4]), 819)
    >>> market.mid[:4].round(5).tolist()
    [1.29995, 1.2999, 1.29985, 1.29985]
    """
    check(law)
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((minutes, QUARTERS))
    jump = draw_jumps(law, rng, (minutes,))
    start = np.array([long_run_variance(law)]), np.zeros(1)
    whole = (z.sum(axis=1) / math.sqrt(QUARTERS))[:, None]
    scale = scale_at(law, np.arange(minutes))
    moves, variances, steps = (each[:, 0] for each in walked(law, *start, whole, jump[:, None], scale))
    log_price = math.log(law.price) + 1e-4 * np.cumsum(moves)
    before = np.concatenate([start[0], variances[:-1]]), np.concatenate([start[1], steps[:-1]])
    within = 1e-4 * _within_minutes(law, rng, z, jump, before)
    bid, spread = quote(law, rng, np.exp(np.concatenate([[math.log(law.price)], log_price[:-1]])[:, None] + within))
    quoted = rng.random(minutes) >= law.missing
    quoted[0] = True
    return Market(law, quoted, _bars(bid * law.tick), _bars((bid + spread) * law.tick), log_price, variances, steps)


def _bars(prices: np.ndarray) -> np.ndarray:
    """(n, 4) quotes of a minute in their order as open, high, low, close."""
    return np.stack([prices[:, 0], prices.max(axis=1), prices.min(axis=1), prices[:, -1]], axis=1)


def write_csv(market: Market, folder: Path, symbol: str) -> Path:
    """The quoted minutes as a file like those of `data/fx_m1`; the same market gives the same bytes."""
    digits = max(0, math.ceil(-math.log10(market.law.tick)))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for n in np.flatnonzero(market.quoted):
        prices = [f"{each:.{digits}f}" for each in (*market.bid[n], *market.ask[n])]
        rows.writerow([int(market.minute[n]) * 60_000, *prices])
    path = folder / f"{symbol}.csv.gz"
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    return path
