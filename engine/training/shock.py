"""`python -m engine.training.shock`: what intervals cover after the volatility has tripled.

Owns the experiment; a tool for people, its small version a test. Reads simulated markets alone, writes a
table on standard output and, where asked, a plot. What must stay true: multipliers are moved by the
engine's own kernels over a window of the engine's own layout; outcomes are counted from the shock on, and
what is averaged begins late enough for the volatility estimate to have seen it.

Beside the engine's intervals (volatility estimate times a multiplier that follows its own misses) stand
the same ones with their multiplier kept, and intervals whose width is kept altogether. The first two take
the shock in through the estimate; what a kept multiplier never mends is that it was fitted on another
market, which is why its coverage before the shock is printed too. The rule's source: Gibbs and Candes,
Adaptive conformal inference under distribution shift, NeurIPS 2021.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from rich.console import Console
from rich.progress import track

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import entry_dtype
from engine.inference.ensemble import BASE_Q, ROOTS
from engine.inference.features import MASK, sigma_of
from engine.inference.intervals import begin_offsets
from engine.training.plots import Line, Mark, line_chart
from engine.training.simulate import FIRST_MINUTE, MARKETS, Law, draw
from engine.training.svg import Words
from fastpath import layout

SEED = 20260204
SIMULATIONS = 200
CALM_MINUTES = 3000  # before the shock: multipliers have settled
SHOCK = 3.0
BEGIN = 500  # outcomes after the shock that are passed over
END = 1500  # times the horizon: the last outcome that counts
KINDS = ("moving", "kept multiplier", "kept width")
COURSE = 1500  # outcomes after the shock that the plot shows ...
BIN = 25  # ... each point so many of them
HISTORY = layout.history_max


class Followed(NamedTuple):
    """What the engine would have said at each minute's close."""

    sigma: np.ndarray  # (n,) bp
    log_q: np.ndarray  # (n, horizons)
    half: np.ndarray  # (n, horizons) half widths, in price


class Single(NamedTuple):
    """One market."""

    shares: np.ndarray  # (horizons, kinds) of outcomes inside
    before: np.ndarray  # (horizons, kinds) of the last outcomes before the shock
    course: np.ndarray  # (horizons, kinds, bins) of those after it
    width: np.ndarray  # (horizons,) median half widths of the moving ones


class Covered(NamedTuple):
    """One horizon, over all simulations."""

    horizon: int
    begin: int  # outcomes after the shock, from this one ...
    end: int  # ... up to but not this one
    shares: np.ndarray  # (simulations, kinds)
    before: float  # mean share of the ones with a kept multiplier before the shock
    course: np.ndarray  # (kinds, bins) means from the shock on
    width: float  # of the moving intervals, over that of ones which know the true volatility: medians

    def means(self) -> dict[str, float]:
        return {name: float(each) for name, each in zip(KINDS, self.shares.mean(axis=0), strict=True)}

    def errors(self) -> dict[str, float]:
        """Standard errors of the means: simulations are independent of each other."""
        spread = self.shares.std(axis=0, ddof=1) / math.sqrt(len(self.shares))
        return {name: float(each) for name, each in zip(KINDS, spread, strict=True)}


@numba.njit
def _follow(mids, predicted, q, roots, entries, first_minute, history, sigma, log_q, half):
    for n in range(len(mids)):
        step, depth = history + n, min(n, history)
        entry = entries[step & MASK]
        entry.minute = first_minute + n
        entry.masked = 0
        entry.span = min(n, 1)
        entry.mid = mids[n]
        entry.move = 0.0 if n == 0 else 1e4 * math.log(mids[n] / mids[n - 1])
        entry.sigma = sigma_of(entries, step, depth, depth)
        entry.log_q[:] = 0.0
        begin_offsets(entries, step, depth, 0)
        for h in range(len(q)):
            entry.predicted[h] = predicted[n, h]
            entry.half[h] = q[h] * np.exp(entry.log_q[h]) * (entry.sigma * roots[h] * 1e-4) * mids[n]
        sigma[n] = entry.sigma
        log_q[n] = entry.log_q
        half[n] = entry.half


def follow(mids: np.ndarray, q: np.ndarray, predicted: np.ndarray | None = None) -> Followed:
    """Minute after minute through a key's window, one close each.

    predicted: (n, horizons) prices, NaN before there are any; left out, "no move" is predicted. Less than a worker
    does (no features, no models), and the same numbers to the bit.
    """
    count = len(mids)
    said = np.repeat(mids[:, None], len(q), axis=1) if predicted is None else predicted
    out = Followed(np.empty(count), np.empty((count, len(q))), np.empty((count, len(q))))
    window = np.zeros(layout.window, entry_dtype)
    _follow(mids, said, q, ROOTS, window, FIRST_MINUTE, HISTORY, *out)
    out.half[np.isnan(said)] = np.nan
    return out


def inside(mids: np.ndarray, said: Followed, q: np.ndarray, calm: int, k: int, then: np.ndarray) -> np.ndarray:
    """(kinds, n): which of these minutes' closes lie in the intervals that were said a horizon before.

    The kept width is that of the volatility's estimate at the shock.
    """
    said_at = then - HORIZON_MINUTES[k]
    unit = ROOTS[k] * 1e-4 * mids[said_at]
    halves = (said.half[said_at, k], q[k] * said.sigma[said_at] * unit, q[k] * said.sigma[calm - 1] * unit)
    return np.abs(mids[then] - mids[said_at]) <= np.stack(halves)


def judge(mids: np.ndarray, said: Followed, q: np.ndarray, calm: int, begin: int, end: int) -> Single:
    """One market's shares. An outcome is a minute's close; those from `begin` to `end` times the horizon count."""
    horizons, kinds = len(q), len(KINDS)
    out = Single(
        np.empty((horizons, kinds)),
        np.empty((horizons, kinds)),
        np.empty((horizons, kinds, COURSE // BIN)),
        np.empty(horizons),
    )
    for k, horizon in enumerate(HORIZON_MINUTES):
        counted = np.arange(calm + begin, calm + end * horizon)
        out.shares[k] = inside(mids, said, q, calm, k, counted).mean(axis=1)
        out.before[k] = inside(mids, said, q, calm, k, np.arange(begin, calm)).mean(axis=1)
        course = inside(mids, said, q, calm, k, np.arange(calm, calm + COURSE))
        out.course[k] = course.reshape(kinds, -1, BIN).mean(axis=2)
        out.width[k] = np.median(said.half[counted - horizon, k])
    return out


def simulate(
    law: Law,
    q: np.ndarray,
    simulations: int,
    seed: int,
    *,
    calm: int = CALM_MINUTES,
    begin: int = BEGIN,
    end: int = END,
) -> Iterator[Single]:
    """One after the other, each from a market of its own."""
    shocked = law._replace(shock=SHOCK, shock_minute=calm, missing=0.0)
    minutes = calm + end * max(HORIZON_MINUTES)
    for n in range(simulations):
        mids = draw(shocked, minutes, seed + n).mid
        yield judge(mids, follow(mids, q), q, calm, begin, end)


def summary(found: list[Single], law: Law, begin: int = BEGIN, end: int = END) -> list[Covered]:
    """By horizon. A knowing interval is the normal one of the steps' true long-run volatility after the shock."""
    covered, before, course, width = (np.array(each) for each in zip(*found, strict=True))
    knowing = 1.6449 * SHOCK * law.volatility * ROOTS * 1e-4 * law.price
    kept = KINDS.index("kept multiplier")
    return [
        Covered(
            horizon,
            begin,
            end * horizon,
            covered[:, k],
            float(before[:, k, kept].mean()),
            course[:, k].mean(axis=0),
            float(np.median(width[:, k]) / knowing[k]),
        )
        for k, horizon in enumerate(HORIZON_MINUTES)
    ]


def table(rows: list[Covered]) -> str:
    """For people; shares with the standard error of their mean over simulations."""
    head = f"{'horizon':>8}  {'outcomes':>15}" + "".join(f"  {name:>17}" for name in KINDS)
    head += f"  {'(before)':>8}  {'width':>6}"
    lines = [head, "-" * len(head)]
    for row in rows:
        means, errors = row.means(), row.errors()
        cells = "".join(f"  {f'{means[name]:.4f} ± {errors[name]:.4f}':>17}" for name in KINDS)
        span = f"{row.begin} to {row.end:,}"
        lines.append(f"{row.horizon:>4} min  {span:>15}{cells}  {row.before:>8.4f}  {row.width:>6.3f}")
    lines.append("before: a kept multiplier's share before the shock")
    lines.append("width: median of the moving ones over that of an interval which knows the new volatility")
    return "\n".join(lines)


def picture(rows: list[Covered], about: str) -> str:
    """Coverage from the shock on, as SVG: moving multipliers by horizon, and kept ones of 15 minutes."""
    middle = (np.arange(COURSE // BIN) + 0.5) * BIN
    lines = [Line(f"moving, {row.horizon} min", middle, row.course[0]) for row in rows]
    lines.append(Line("kept, 15 min", middle, rows[2].course[1]))
    words = Words(
        f"Coverage of 90 % intervals after volatility × {SHOCK:g}", "outcomes after the shock", "share inside", about
    )
    return line_chart(words, lines, marks=[Mark(0.9, "90 %")])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.shock", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--market", choices=MARKETS, default="random walk", help="law of the moves")
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help=f"markets to draw ({SIMULATIONS})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the first market ({SEED})")
    parser.add_argument(
        "--q", type=float, nargs=len(HORIZON_MINUTES), default=[BASE_Q] * len(HORIZON_MINUTES),
        help=f"multipliers to begin with, for {', '.join(map(str, HORIZON_MINUTES))} minutes ({BASE_Q} each)",
    )  # fmt: skip
    parser.add_argument("--plot", type=Path, help="file for a picture of the coverage from the shock on (SVG)")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    if arguments.simulations < 2:
        parser.error(f"--simulations: expected at least 2, found {arguments.simulations}")
    law, q = MARKETS[arguments.market], np.array(arguments.q)
    each = simulate(law, q, arguments.simulations, arguments.seed)
    console = Console(stderr=True)
    rows = summary(list(track(each, "markets", total=arguments.simulations, console=console)), law)
    about = f"{arguments.market}, {arguments.simulations} simulations, seed {arguments.seed}"
    if arguments.plot:
        arguments.plot.write_text(picture(rows, about))
    if arguments.json:
        keys = ("horizon", "begin", "end", "before", "width")
        print(json.dumps([{**{key: getattr(row, key) for key in keys}, **row.means()} for row in rows]))
        return 0
    print(f"Share of outcomes inside 90 % intervals after volatility x {SHOCK:g}: {about}")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
