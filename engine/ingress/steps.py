"""Minutes to steps: which entry of its key's window each vector is, and what it may do there.

Owns the key table's content. Runs in ingress. Reads a batch, decides about each of its vectors, and later
writes the key rows as decided; the rule itself is compiled (`fastpath.vectors`). What must stay true: a decision
follows from the key rows and the batch alone, and holds the key's absolute new step, so that applying it
twice is applying it once.
"""

import numpy as np

from engine.ingress.tables import Tables
from engine.ingress.values import bounds_of
from engine.settings import Settings
from fastpath.slots import apply_keys
from fastpath.vectors import Batch

NOBODY = -1  # row of a late vector of an unknown key


class Steps:
    """Decides vectors and applies decisions."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self.tables = tables
        self.bounds = bounds_of(settings.limits)
        self.symbols = frozenset(settings.engine.symbols)
        self._reserved: list[tuple] = []  # keys that this batch would bring
        self._used: set[tuple] = set()  # keys that it uses, those included

    def decide(
        self, batch: Batch, envelope_ns: int, company: str, stream: int, generation: int, late: bool, missing: int
    ) -> None:
        """A `vector_decision` for each vector, in their order, within the batch.

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
        symbols = batch.check(envelope_ns, self.symbols, self.bounds)
        rows = [self._row(company, (stream, generation, symbol), late) if symbol else NOBODY for symbol in symbols]
        shared = self.tables.shared
        batch.place(rows, shared.keys, shared.stream_states, shared.streams, stream, missing, late, self.bounds)

    def give_back(self) -> None:
        """Forgets the keys that the last decided batch would have brought: it was not accepted."""
        for name in self._reserved:
            self.tables.keys.forget(name)
        self._reserved = []

    def apply(self, decisions: np.ndarray, stream: int, generation: int, company: str, received_ns: int) -> None:
        """Writes the key rows as decided."""
        keys = self.tables.shared.keys
        for index in apply_keys(decisions, keys, stream, generation, received_ns):
            symbol = decisions["symbol"][index].decode()
            self.tables.keys.restore(int(decisions["key"][index]), company, (stream, generation, symbol))
        self._reserved = []

    def _row(self, company: str, name: tuple, late: bool) -> int:
        """The key's, `NOBODY` for a late vector of a key that has none."""
        row = self.tables.keys.names.get(name)
        self._used.add(name)
        if row is not None:
            return row
        if late:
            return NOBODY
        row = self.tables.keys.reserve(company, name, self._used)
        self._reserved.append(name)
        return row
