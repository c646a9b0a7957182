"""`python -m engine.training`: the bundled models, made again from the bundled data.

Reads `data/fx_m1`, writes `models/`: artefacts, manifests, cards, golden rows, and at the end the report of all of
them. Needs the extra `train`. What must stay true: seeds are fixed,
so the same machine makes the same artefacts.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from engine.training import direction, golden, price, report, shapes, stacker
from engine.training.data import load

ROOT = Path(__file__).parent.parent.parent
MODELS: dict[str, Callable[..., None]] = {
    "basic_lstm": partial(price.train, plan=price.BASIC),
    "advanced_lstm": partial(price.train, plan=price.ADVANCED),
    "simple_pattern": partial(shapes.train, shapes.SIMPLE),
    "cnn_patterns": partial(shapes.train, shapes.CNN),
    "xgboost_direction": direction.train,
    "ensemble_meta": stacker.train,  # after all whom it hears; it also notes the vote's weights in their manifests
}
JUDGED_LIVE = ("basic_lstm", "advanced_lstm")  # by what the engine answers to the bars


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.training", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data" / "fx_m1", help="folder of one-minute bid and ask bars"
    )
    parser.add_argument("--store", type=Path, default=ROOT / "models", help="model store to write to")
    parser.add_argument("--only", choices=MODELS, help="make this model alone")
    arguments = parser.parse_args()
    began = time.monotonic()

    def progress(line: str, about: str = "") -> None:
        print(f"{time.monotonic() - began:6.1f} s  {about}{line}", file=sys.stderr, flush=True)

    examples = load(arguments.data)
    progress(f"{len(examples.minute):,} minutes read")
    for name, train in MODELS.items():
        if arguments.only in (None, name):
            bars = {"data": arguments.data} if name in JUDGED_LIVE else {}
            train(examples, arguments.store, partial(progress, about=f"{name}: "), **bars)
            progress(f"{name}: written to {arguments.store / name}")
    progress(f"golden rows written: {', '.join(golden.write_all(arguments.store, arguments.data))}")
    progress(f"report written: {', '.join(report.write(arguments.store))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
