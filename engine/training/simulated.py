"""`python -m engine.training.simulated`: the price models' training on markets whose truth is known.

Owns the experiment; a tool for people. Reads nothing; prints a table. What must stay true: the way is that
of the bundled models (`engine.training.price`) from the open minute that is drawn to the engine's own
answers, on three markets of one law; what the answers say of their own certainty is held against outcomes
and against the truth.

A network that was taught by real markets says of a market without memory what it learned of others: its
intervals hold there (they follow outcomes), its chances of a rise do not. So it is taught anew here.
"""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import LSTM_MINUTES
from engine.inference.features import FEATURE_NAMES
from engine.training import artefacts, live, network, price
from engine.training.data import Examples, drawn, labelled, parts_of, walk
from engine.training.simulate import FINE, MARKETS, Law, Market, draw
from engine.training.truth import truth

MINUTES = 9000
SEED = 20260106
NAMES = ("SIM0", "SIM1", "SIM2")
LAWS = {**MARKETS, "momentum": FINE._replace(momentum=0.2, missing=0.0)}  # in the last one there is something to know
PLAN = price.BASIC._replace(epochs=3, share=1.0)


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
    fitted = price.learn(examples, teach, PLAN, lambda line: print(line, file=sys.stderr))
    median, logit = network.predict(network.lstm, fitted, examples.rows[steady])
    scale, _ = price.scale_heads(fitted, median, logit, examples.move[steady], price.when_of(examples, steady))
    distance = np.abs(examples.move[steady] - scale * median)
    manifest = {
        "id": PLAN.id, "version": PLAN.version, "kind": "lstm", "role": "price", "features": list(FEATURE_NAMES),
        "closed_minutes": LSTM_MINUTES, "outputs": ["move", "rise"], "horizons": list(HORIZON_MINUTES),
        "weight": PLAN.weight, "range": price.bounds(examples, teach), "quality": {},
        "calibration": {"q": [price.conformal_q(distance[:, h]) for h in range(len(HORIZON_MINUTES))]},
        "training": price.source(examples, teach),
    }  # fmt: skip
    artefacts.write(folder, artefacts.lstm_bytes(fitted, len(HORIZON_MINUTES)), "model.onnx", manifest, "")


def lines(examples: Examples, markets: list[Market], folder: Path) -> list[str]:
    """One a horizon: on the last part, what was said beside what happened and what was true."""
    predictor = live.open_predictor(folder)
    said, chances = [], []
    for name, market in zip(NAMES, markets, strict=True):
        bars = market.bars(name)
        late = parts_of(bars.minute, bars.minute) == "test"
        said.append(live.chosen(live.answers_of(predictor, bars), np.flatnonzero(late)))
        rise = np.stack([truth(market, h).rise for h in HORIZON_MINUTES], axis=1)
        chances.append(rise[market.quoted][late])
    early = live.joined(
        [live.plain(market.bars(name), np.arange(1500)) for name, market in zip(NAMES, markets, strict=True)]
    )
    out = []
    q = next(iter(predictor.models.values())).manifest.calibration["q"]
    whole, true = live.joined(said), np.concatenate(chances)
    for h, minutes in enumerate(HORIZON_MINUTES):
        each = live.judge_horizon(whole, early, h, float(q[h]))
        sure = np.abs(whole.rise[:, h] - 0.5)
        really = np.where(whole.rise[:, h] > 0.5, true[:, h], 1.0 - true[:, h])[sure > 0.0]
        spoken = f"{0.5 + sure[sure > 0.0].mean():.4f}  {np.nanmean(really):.4f}" if len(really) else "no opinion    "
        out.append(
            f"{minutes:>4} min  {each.moving.share:.4f} ± {each.moving.allowance:.4f}  "
            f"{each.width.ratio:.3f}  {each.brier_excess.mean:+.5f} ± {each.brier_excess.standard_error:.5f}  "
            f"{each.calibrated.error:.4f} of {each.calibrated.band:.4f}  {spoken}"
        )
    return out


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
        with TemporaryDirectory() as folder:
            taught(examples, Path(folder))
            print(f"{name}: 3 markets of {arguments.minutes:,} minutes, seed {arguments.seed}")
            print(
                "horizon   coverage ± 2 errors  width  Brier over climatology ± error  calibration, band  said    true"
            )
            print("\n".join(lines(examples, markets, Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
