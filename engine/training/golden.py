"""Golden rows for every version in a store: messages of the bundled minutes, and what the version makes of them.

Run by `python -m engine.training` after all models, and as `python -m engine.training.golden [--store FOLDER] [ID ...]`
for models of one's own. Reads `data/fx_m1` and the store; writes each version's `golden.json` and names it
in its manifest. What must stay true: a version that gives no usable numbers gets no rows; the messages are
of the last part of the data, which no bundled model was fitted on; the same versions give the same files.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.errors import ModelError
from engine.inference import batch as arrays
from engine.inference.constants import new_book
from engine.inference.golden import TOLERANCE, outputs_of
from engine.inference.models.stacker import MEMBERS
from engine.inference.opening import opened
from engine.inference.proof import fault
from engine.registry.manifest import Manifest, read_store
from engine.tenancy.tiers import Role
from engine.training.data import Bars, read_bars
from fastpath import layout

ROOT = Path(__file__).parent.parent.parent
ROWS = 6
SEED = 20260110
MINUTE_NS = 60_000_000_000
SECTION = re.compile(r"^\s*\[golden\][^\n]*\n(?:(?!\s*\[)[^\n]*\n?)*", re.MULTILINE)


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
    """Asks the version, and keeps its answers beside it; ModelError, and nothing written, where it is of no use."""
    model = opened(manifest, new_book(1, 0, 0), 0)
    batch, output = arrays.new_batch(1), arrays.Output(1)
    rows = questions(manifest, every)
    for number, row in enumerate(rows, 1):
        answer = outputs_of(model, row, batch, output)
        if found := fault(model, batch, output):
            raise ModelError(f"{manifest.path}: no usable numbers for row {number}: {found}")
        row["expected"] = {name: values.tolist() for name, values in answer.items()}
    data = json.dumps({"tolerance": TOLERANCE, "rows": rows}, indent=1).encode() + b"\n"
    file = manifest.folder / "model.toml"
    text = SECTION.sub("", file.read_text())
    text = f'{text.rstrip()}\n\n[golden]\nfile = "golden.json"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\n'
    if set(tomllib.loads(text)) != set(tomllib.loads(file.read_text())) | {"golden"}:
        raise ModelError(f"{file}: expected `[golden]` as a table of its own, found it within another; take it out")
    _replace(manifest.folder / "golden.json", data)
    _replace(file, text.encode())


def _replace(file: Path, data: bytes) -> None:
    """Whole or not at all."""
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(data)
    new.replace(file)


def read_all(data: Path) -> list[Bars]:
    files = sorted(data.glob("*.csv.gz"))
    if not files:
        raise ModelError(f"{data}: expected files of one-minute bars, *.csv.gz, found none; give --data")
    return [read_bars(path) for path in files]


def write_all(store: Path, data: Path, ids: Sequence[str] = ()) -> list[str]:
    """Of all models, or of those named; the first one that is of no use is an error."""
    every = read_all(data)
    chosen = [each for each in read_store(store) if not ids or each.id in ids]
    for each in chosen:
        write(each, every)
    return [each.name for each in chosen]


def write_some(store: Path, data: Path, ids: Sequence[str]) -> int:
    """The same for people: what cannot be done is told, and the others are done. Exit status."""
    refused: list[str] = []
    try:
        every = read_all(data)
        manifests = read_store(store, lambda error: refused.append(f"left out: {error}"))
    except ModelError as error:
        return _told([*refused, f"golden: {error}"], 1)
    there = {each.id for each in manifests}
    failed = [f"{each}: no version in {store} that can be read; nothing written" for each in ids if each not in there]
    done = []
    for each in manifests:
        if ids and each.id not in ids:
            continue
        try:
            write(each, every)
            done.append(each.name)
        except (ModelError, OSError) as error:
            failed.append(f"{each.name}: {error}; nothing written")
    # Of a store of many, only what stands between somebody and his own models is told.
    told = [*(refused if failed or not ids else ()), *failed]
    if done:
        told.append(f"golden rows written: {', '.join(done)}")
    return _told(told, 1 if failed or (refused and not ids) else 0)


def _told(lines: Sequence[str], status: int) -> int:
    for line in lines:
        print(line, file=sys.stderr)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.golden", description="Writes golden rows.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="models; without any, all in the store")
    parser.add_argument("--store", type=Path, default=ROOT / "models", help="model store")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "fx_m1", help="folder of one-minute bars")
    arguments = parser.parse_args()
    return write_some(arguments.store, arguments.data, arguments.ids)


if __name__ == "__main__":
    sys.exit(main())
