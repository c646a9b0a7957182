"""Minutes to steps: which entry of its key's window each vector is, and what it may do there.

Owns the key table's content. Runs in ingress. Reads a decoded batch, gives a `vector_decision` for each
vector, and later writes the key rows as decided. What must stay true: a decision follows from the key
rows and the batch alone, and holds the key's absolute new step, so that applying it twice is applying
it once.
"""

from dataclasses import dataclass

import numpy as np

from engine import limits
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.contract.names import Flag, Reason
from engine.ingress.tables import NO_KEY, Tables
from engine.ingress.values import check_vector
from engine.settings import Settings
from fastpath import arbiter, layout

MINUTE_NS = 60 * 10**9


@dataclass(slots=True)
class Key:
    """A key's place in time, while a batch is being decided."""

    row: int
    generation: int
    last_ns: int
    minute: int
    step: int
    depth: int
    fresh: bool


class Steps:
    """Decides vectors and applies decisions."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self.tables = tables
        self.bounds = settings.limits
        self.symbols = frozenset(settings.engine.symbols)
        self._reserved: list[tuple] = []  # keys that this batch would bring
        self._used: set[tuple] = set()  # keys that it uses, those included

    def decide(
        self,
        batch: FeatureVectorBatch,
        envelope: MLProcessingEnvelope,
        stream: int,
        generation: int,
        late: bool,
        missing: int,
    ) -> np.ndarray:
        """A `vector_decision` for each vector, in their order.

        Parameters
        ----------
        stream, generation
            Row of the stream table and its generation: part of each key's name.
        missing
            Sequences found missing just before this message; they are not in the stream's state yet.

        Raises
        ------
        Refused
            `overloaded`: no room for a key that the batch brings.
        """
        self._reserved, self._used = [], set()
        vectors = batch.feature_vectors
        decisions = np.zeros(len(vectors), layout.vector_decision_dtype)
        keys: dict[str, Key] = {}
        for decision, vector in zip(decisions, vectors, strict=True):
            symbol = vector.symbol
            decision["symbol"], decision["symbol_bytes"] = symbol.encode(), len(symbol)
            decision["event_ns"] = vector.timestamp_ns
            reason, flags = check_vector(vector, envelope.timestamp, self.symbols, self.bounds)
            decision["reason"], decision["flags"] = reason, flags
            if reason != Reason.NONE:
                continue
            minute = vector.timestamp_ns // MINUTE_NS
            decision["minute"] = minute
            if symbol not in keys:
                found = self._key(envelope.company_id, (stream, generation, symbol), late)
                if found is None:
                    decision["generation"], decision["outside"], decision["step"] = NO_KEY, 1, limits.FIRST_STEP
                    continue
                keys[symbol] = found
            key = keys[symbol]
            self._place(decision, key, vector, minute, late)
            gaps = missing + arbiter.window_gaps(
                self.tables.shared.stream_states, self.tables.shared.streams, stream, minute - key.depth
            )
            if key.fresh and decision["opens"]:
                gaps = 0  # the window begins with this vector
            decision["window_gaps"] = min(gaps, 0xFFFFFFFF)
            if gaps:
                decision["flags"] |= Flag.GAP
            key.fresh = False
        return decisions

    def give_back(self) -> None:
        """Forgets the keys that the last decided batch would have brought: it was not accepted."""
        for name in self._reserved:
            self.tables.keys.forget(name)
        self._reserved = []

    def apply(
        self, decisions: np.ndarray, stream: int, generation: int, company: str, position: int, received_ns: int
    ) -> None:
        """Writes the key rows as decided."""
        table = self.tables.shared.keys
        for decision in decisions:
            if decision["reason"] or decision["generation"] == NO_KEY:
                continue
            row = table[int(decision["key"])]
            if not row["taken"] or row["generation"] != decision["generation"]:
                row["symbol"], row["symbol_bytes"] = decision["symbol"], decision["symbol_bytes"]
                row["stream"], row["stream_generation"] = stream, generation
                row["generation"] = decision["generation"]
                row["taken"] = 1
                self.tables.keys.restore(
                    int(decision["key"]), company, (stream, generation, decision["symbol"].decode())
                )
            if not decision["outside"]:
                row["last_ns"], row["minute"] = decision["event_ns"], decision["minute"]
                row["step"], row["depth"] = decision["step"], decision["depth"]
            row["used"], row["used_ns"] = position, received_ns
        self._reserved = []

    def _key(self, company: str, name: tuple, late: bool) -> Key | None:
        """The key's place, None for a late vector of a key that has none."""
        table = self.tables.shared.keys
        row = self.tables.keys.names.get(name)
        self._used.add(name)
        if row is None:
            if late:
                return None
            row = self.tables.keys.reserve(company, name, self._used)
            self._reserved.append(name)
            return Key(row, int(table[row]["generation"]) + 1, 0, 0, limits.FIRST_STEP, 0, True)
        found = table[row]
        if not found["taken"]:
            return Key(row, int(found["generation"]) + 1, 0, 0, limits.FIRST_STEP, 0, True)
        return Key(
            row,
            int(found["generation"]),
            int(found["last_ns"]),
            int(found["minute"]),
            int(found["step"]),
            int(found["depth"]),
            False,
        )

    def _place(self, decision: np.void, key: Key, vector: FeatureVector, minute: int, late: bool) -> None:
        """The contract's minute rule."""
        if key.fresh:
            history = min(len(vector.price_history.mid_prices), layout.history_max)
            decision["opens"], decision["fresh"], decision["history_count"] = 1, 1, history
            key.depth = history
        elif late or vector.timestamp_ns <= key.last_ns:
            decision["outside"] = 1
            if vector.timestamp_ns <= key.last_ns:
                decision["flags"] |= Flag.OLD
        elif minute != key.minute:
            empty = minute - key.minute - 1
            masked = empty if empty <= limits.HOLE_STEPS_MAX else 1
            decision["opens"], decision["skipped"] = 1, masked
            key.step += 1 + masked
            key.depth = min(key.depth + 1 + masked, layout.history_max)
        if not decision["outside"]:
            key.last_ns, key.minute = vector.timestamp_ns, minute
        decision["key"], decision["generation"] = key.row, key.generation
        decision["step"], decision["depth"] = key.step, key.depth
