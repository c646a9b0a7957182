"""Replayed answers as a table: a row for each vector, written as Parquet.

Owns the file that it writes. Runs in the process of the command. What must stay true: a row holds the numbers
that the answer holds, and says whether live gave the same. PyArrow is an extra, and is imported here alone.
"""

from pathlib import Path
from typing import Any

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch, Prediction
from engine.contract.names import HORIZON_MINUTES, Signal, Status
from engine.errors import SettingsError
from engine.replay.running import Result

ROWS = 10_000  # written at a time


class Table:
    """`add` results, then `close`."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise SettingsError("--out needs PyArrow: install the extra `replay`, or the package `pyarrow`") from None
        self.arrow = pyarrow
        self.schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in _columns().items()])
        try:
            self.writer = parquet.ParquetWriter(path, self.schema)
        except OSError as error:
            raise SettingsError(f"--out {path}: cannot be written: {error}") from None
        self.rows: list[dict[str, Any]] = []

    def add(self, result: Result) -> None:
        self.rows += rows_of(result)
        if len(self.rows) >= ROWS:
            self._write()

    def close(self) -> None:
        self._write()
        self.writer.close()

    def _write(self) -> None:
        self.writer.write_table(self.arrow.Table.from_pylist(self.rows, self.schema))
        self.rows = []


def _columns() -> dict[str, str]:
    columns = {"position": "uint64", "company": "string", "stream": "string", "epoch": "uint64", "sequence": "uint64"}
    columns |= {"received_unix_ns": "int64", "as_live": "bool_", "late": "bool_", "code": "string"}
    columns |= {
        "symbol": "string",
        "event_ns": "int64",
        "status": "string",
        "reason": "string",
        "window_gaps": "uint32",
    }
    columns |= {
        "window_gaps": "uint32",
        "signal": "string",
        "score": "float32",
        "confidence": "float32",
        "decided_by": "string",
    }
    columns |= {"fallbacks": "string", "base_price": "float64"}
    for minutes in HORIZON_MINUTES:
        columns |= {f"{name}_{minutes}m": "float64" for name in ("price", "lower", "upper")}
        columns |= {f"direction_{minutes}m": "string", f"confidence_{minutes}m": "float32"}
    return columns | {"buy": "float32", "hold": "float32", "sell": "float32", "patterns": "string"}


def rows_of(result: Result) -> list[dict[str, Any]]:
    """A row for each vector; one for a whole rejection, with its code."""
    envelope = MLProcessingEnvelope.FromString(result.values)
    row: dict[str, Any] = {
        "position": result.position,
        "company": envelope.company_id,
        "epoch": envelope.epoch,
        "sequence": envelope.sequence,
        "received_unix_ns": result.received_unix_ns,
        "as_live": None if result.live is None else result.is_as_live,
    }
    if envelope.message_type == "ml_rejection":
        rejection = Rejection.FromString(envelope.payload)
        return [row | {"stream": rejection.source_id, "code": rejection.code}]
    batch = MLPredictionBatch.FromString(envelope.payload)
    return [row | {"stream": batch.source_id, "late": batch.late} | _said(each) for each in batch.predictions]


def _said(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "symbol": prediction.symbol,
        "event_ns": prediction.timestamp_ns,
        "status": Status(prediction.status).name,
        "reason": prediction.reason,
        "window_gaps": prediction.window_gaps,
    }
    if prediction.status in (Status.EXPIRED, Status.REJECTED):
        return row
    ensemble = prediction.ensemble
    row |= {"signal": Signal(ensemble.signal).name, "score": ensemble.score, "confidence": ensemble.confidence}
    row |= {"decided_by": f"{prediction.model_info.model_id} {prediction.model_info.version}"}
    stood_in = [each.model.model_id for each in ensemble.contributions if each.fallback]
    row |= {"fallbacks": " ".join(stood_in), "base_price": prediction.price.base_price}
    for each in prediction.price.horizon_predictions:
        minutes = f"{each.horizon_minutes}m"
        row |= {
            f"price_{minutes}": each.predicted_price,
            f"lower_{minutes}": each.lower_price,
            f"upper_{minutes}": each.upper_price,
            f"direction_{minutes}": Signal(each.direction).name,
            f"confidence_{minutes}": each.confidence,
        }
    if prediction.HasField("direction"):
        chances = prediction.direction
        row |= {
            "buy": chances.buy_probability, "hold": chances.hold_probability, "sell": chances.sell_probability,
        }  # fmt: skip
    found = [f"{each.pattern_type}:{each.probability:.3f}" for each in prediction.pattern.detected_patterns]
    return row | {"patterns": " ".join(found)}
