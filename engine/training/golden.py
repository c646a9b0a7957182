"""Golden rows for every version in a store: messages of the bundled minutes, and what the version makes of them.

Run by `python -m engine.training` after all models, and as `python -m engine.training.golden [--store FOLDER] [ID ...]`
for models of one's own. Reads `data/fx_m1` and the store; writes each version's `golden.json` and names it
in its manifest. What must stay true: the messages are of the last part of the data, which no bundled model
was fitted on; the same versions give the same files.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.inference import batch as arrays
from engine.inference.golden import TOLERANCE, outputs_of
from engine.inference.models.stacker import MEMBERS
from engine.inference.predictor import made
from engine.registry.manifest import Manifest, read_store
from engine.tenancy.tiers import Role
from engine.training.data import Bars, read_bars
from fastpath import layout

ROOT = Path(__file__).parent.parent.parent
ROWS = 6
SEED = 20260110
MINUTE_NS = 60_000_000_000


def message(bars: Bars, at: int, correlations: Sequence[float], extra: Sequence[float]) -> bytes:
    """One vector at the end of bar `at`, with the minutes before it as its price history."""
    made = FeatureVectorBatch()
    vector = made.feature_vectors.add(
        symbol=bars.symbol, timestamp_ns=(int(bars.minute[at]) + 1) * MINUTE_NS - 1_000_000
    )
    vector.price_features.bid, vector.price_features.ask = float(bars.bid[at]), float(bars.ask[at])
    vector.cross_asset.correlation_scores.extend(correlations)
    vector.extra.extend(extra)
    vector.price_history.mid_prices.extend(bars.mid[at - layout.history_max : at].tolist())
    return made.SerializeToString(deterministic=True)


def questions(manifest: Manifest, every: Sequence[Bars]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(SEED)
    out: list[dict[str, Any]] = []
    for n in range(ROWS):
        bars = every[n % len(every)]
        at = int(rng.integers(int(0.8 * len(bars.minute)), len(bars.minute)))
        correlations = rng.uniform(-1.0, 1.0, 2 * (n % 2)).round(3).tolist()  # half of them know none
        if manifest.role == Role.ENSEMBLE:
            out.append({"members": rng.uniform(0.0, 0.5, MEMBERS).round(4).tolist()})
        else:
            extra = rng.normal(size=8).round(3).tolist()
            out.append({"message": base64.b64encode(message(bars, at, correlations, extra)).decode()})
    return out


def write(manifest: Manifest, every: Sequence[Bars]) -> None:
    """Asks the version, and keeps its answers beside it."""
    model = made(manifest)
    model.open()
    batch, output = arrays.new_batch(1), arrays.new_output(1)
    rows = questions(manifest, every)
    for row in rows:
        row["expected"] = {name: values.tolist() for name, values in outputs_of(model, row, batch, output).items()}
    data = json.dumps({"tolerance": TOLERANCE, "rows": rows}, indent=1).encode() + b"\n"
    (manifest.folder / "golden.json").write_bytes(data)
    file = manifest.folder / "model.toml"
    text = re.sub(r'\n\[golden\]\nfile = "[^"]*"\nsha256 = "[^"]*"\n', "", file.read_text())
    file.write_text(f'{text}\n[golden]\nfile = "golden.json"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\n')


def write_all(store: Path, data: Path, ids: Sequence[str] = ()) -> list[str]:
    every = [read_bars(path) for path in sorted(data.glob("*.csv.gz"))]
    chosen = [each for each in read_store(store) if not ids or each.id in ids]
    for each in chosen:
        write(each, every)
    return [each.name for each in chosen]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.golden", description="Writes golden rows.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="models; without any, all in the store")
    parser.add_argument("--store", type=Path, default=ROOT / "models", help="model store")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "fx_m1", help="folder of one-minute bars")
    arguments = parser.parse_args()
    print("golden rows written:", ", ".join(write_all(arguments.store, arguments.data, arguments.ids)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
