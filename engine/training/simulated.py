"""`python -m engine.training.simulated`: the price models' training on markets whose truth is known.

Owns the experiment; a tool for people, its small version a test. Reads the bundled price models; prints tables.
What must stay true: the way is that of the bundled models (`engine.training.price`) from the open minute
that is drawn to the engine's own answers, on three markets of one law; coverage, Brier scores and the
calibration of the published confidence are each said to be right or wrong to two standard errors.

A Brier score is right that is neither worse than climatology's nor better than that of whoever knows the law
and the price behind the quotes. A network that was taught by real markets says of a market without memory
what it learned of others: its intervals hold there (they follow outcomes), its confidence does not. So one is
taught anew here, and the bundled ones stand below it.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import LSTM_MINUTES
from engine.inference.features import FEATURE_NAMES
from engine.training import artefacts, left_out, live, network, price, scores
from engine.training.bootstrap import Estimate, difference
from engine.training.data import Examples, drawn, labelled, parts_of, walk
from engine.training.live import Said
from engine.training.price_scores import Judged, judge_horizon
from engine.training.scores import NOMINAL
from engine.training.simulate import FINE, MARKETS, Law, Market, draw
from engine.training.truth import truth

MINUTES = 9000
SEED = 20260106
NAMES = ("SIM0", "SIM1", "SIM2")
LAWS = {**MARKETS, "momentum": FINE._replace(momentum=0.2, missing=0.0)}  # in the last one there is something to know
STORE = Path(__file__).parent.parent.parent / "models"
BUNDLED = (price.BASIC.id, price.ADVANCED.id)
PLAN = price.BASIC._replace(epochs=3, share=1.0)
P_MIN = 0.0228  # a perfect forecaster's calibration error is as large as two standard errors are, one-sided
WORDS = {True: "right", False: "WRONG"}
HEAD = (
    "horizon   coverage ± 2 errors     width  Brier over climatology  over the truth ± error      "
    "calibration, band       said   true"
)


def examples_of(law: Law, minutes: int, seed: int) -> tuple[Examples, list[Market]]:
    """Each market is a symbol of its own time."""
    found, markets = [], []
    for n, name in enumerate(NAMES):
        markets.append(draw(law, minutes, seed + n))
        bars = markets[-1].bars(name)
        part = parts_of(bars.minute, bars.minute)
        shown = drawn(bars, part, seed + n)
        found.append(labelled(bars, walk(bars, np.full((len(bars.minute), 1), np.nan), shown), shown, part))
    return Examples(*(np.concatenate(columns) for columns in zip(*found, strict=True))), markets


def taught(examples: Examples, folder: Path) -> None:
    """A store with one price model, fitted, scaled and calibrated on these markets."""
    teach, steady = price.ready_rows(examples, "train"), price.ready_rows(examples, "calibration")
    fitted = price.learn(examples, teach, PLAN, lambda line: print(line, file=sys.stderr)).parameters
    median, logit = network.predict(network.lstm, fitted, examples.rows[steady])
    scale, _ = price.scale_heads(fitted, median, logit, examples.move[steady], price.when_of(examples, steady))
    distance = np.abs(examples.move[steady] - scale * median)
    manifest = {
        "id": PLAN.id, "version": PLAN.version, "kind": "lstm", "role": "price", "features": list(FEATURE_NAMES),
        "closed_minutes": LSTM_MINUTES, "outputs": ["move", "rise"], "horizons": list(HORIZON_MINUTES),
        "weight": PLAN.weight, "range": price.bounds(examples, teach), "quality": {},
        "calibration": {"q": [left_out.conformal_q(distance[:, h]) for h in range(len(HORIZON_MINUTES))]},
        "training": price.source(examples, teach),
    }  # fmt: skip
    artefacts.write(folder, artefacts.lstm_bytes(fitted, len(HORIZON_MINUTES)), "model.onnx", manifest, "")


class Verdict(NamedTuple):
    """One horizon on the last part of the markets: what was said beside what happened and what was true."""

    judged: Judged
    over_truth: Estimate  # Brier score less that of whoever knows the law and the state
    said: float  # mean confidence where the model had an opinion; NaN where it had none
    true: float  # the true chance of the sides that it named

    @property
    def covers(self) -> bool:
        return abs(self.judged.moving.share - NOMINAL) <= self.judged.moving.allowance

    @property
    def scores(self) -> bool:
        """No worse than climatology, and no better than the truth."""
        excess = self.judged.excess["climatology"]
        return not excess.above() and self.over_truth.mean >= -2.0 * self.over_truth.standard_error

    @property
    def calibrated(self) -> bool:
        return self.judged.confident.p_value > P_MIN

    def line(self) -> str:
        each, excess, found = self.judged, self.judged.excess["climatology"], self.judged.confident
        spoken = f"{self.said:.4f} {self.true:.4f}" if math.isfinite(self.said) else "no opinion   "
        return (
            f"{each.minutes:>4} min  {each.moving.share:.4f} ± {each.moving.allowance:.4f} {WORDS[self.covers]}"
            f"  {each.width.ratio:.3f}  {excess.mean:+.5f} ± {excess.standard_error:.5f}"
            f"  {self.over_truth.mean:+.5f} ± {self.over_truth.standard_error:.5f} {WORDS[self.scores]}"
            f"  {found.error:.4f} of {found.band:.4f} {WORDS[self.calibrated]}  {spoken}"
        )


def verdicts(examples: Examples, markets: list[Market], folder: Path) -> list[Verdict]:
    """One a horizon, from the engine's own answers."""
    predictor = live.open_predictor(folder)
    said, chances = [], []
    for name, market in zip(NAMES, markets, strict=True):
        bars = market.bars(name)
        late = parts_of(bars.minute, bars.minute) == "test"
        said.append(live.chosen(live.answers_of(predictor, bars), np.flatnonzero(late)))
        rise = np.stack([truth(market, h).rise for h in HORIZON_MINUTES], axis=1)
        chances.append(rise[market.quoted][late])
    early = live.joined(
        [live.plain(bars, np.flatnonzero(parts_of(bars.minute, bars.minute) == "train"))
         for bars in (market.bars(name) for name, market in zip(NAMES, markets, strict=True))]
    )  # fmt: skip
    q = next(iter(predictor.models.values())).manifest.calibration["q"]
    return [verdict(live.joined(said), np.concatenate(chances), early, h, q) for h in range(len(HORIZON_MINUTES))]


def verdict(said: Said, true: np.ndarray, early: Said, h: int, q: Sequence[float]) -> Verdict:
    """true: (n, horizons) chances of a rise, given a move."""
    known = np.isfinite(said.outcome[:, h]) & np.isfinite(true[:, h]) & (said.outcome[:, h] != said.mid)
    here = live.chosen(said, np.flatnonzero(known))
    chance, really, risen = here.rise[:, h], true[known, h], here.outcome[:, h] > here.mid
    over = difference(scores.brier(chance, risen), scores.brier(really, risen), HORIZON_MINUTES[h], when=here.when)
    spoke = chance != 0.5
    side = np.where(chance > 0.5, really, 1.0 - really)[spoke]
    sure = np.maximum(chance, 1.0 - chance)[spoke]
    return Verdict(
        judge_horizon(said, early, h, float(q[h])), over,
        float(sure.mean()) if len(sure) else math.nan, float(side.mean()) if len(side) else math.nan,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.training.simulated", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--market", choices=LAWS, action="append", help="law of the moves (all)")
    parser.add_argument("--minutes", type=int, default=MINUTES, help=f"of each of the three markets ({MINUTES})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the first market ({SEED})")
    arguments = parser.parse_args()
    for name in arguments.market or LAWS:
        examples, markets = examples_of(LAWS[name], arguments.minutes, arguments.seed)
        print(f"{name}: 3 markets of {arguments.minutes:,} minutes, seed {arguments.seed}\n{HEAD}")
        with TemporaryDirectory() as folder:
            taught(examples, Path(folder))
            found = verdicts(examples, markets, Path(folder))
        print("\n".join(each.line() for each in found))
        right = sum(each.covers + each.scores + each.calibrated for each in found)
        print(f"within two standard errors: {right} of {3 * len(found)}")
        for model in BUNDLED:
            with TemporaryDirectory() as folder:
                copytree(STORE / model, Path(folder) / model)
                found = verdicts(examples, markets, Path(folder))
            print(f"{model} as bundled, which real weeks taught:")
            print("\n".join(each.line() for each in found), flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
