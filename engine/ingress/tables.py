"""The stream and key tables: which row a name has, and who must leave when there is no room.

Owns the lookups from names to rows; the rows themselves are the arena's, so that they outlive this
process. Runs in ingress, their only writer. What must stay true: a row that is taken names what it
belongs to, and a new owner gets a new generation, so that nothing of the old one's is ever read.
"""

import hashlib
import time
from collections.abc import Container, Iterable

import numpy as np

from engine import limits
from engine.contract.names import Reason
from engine.errors import Refused
from engine.settings import Limits
from engine.shared import Shared

IDLE_NS = 900 * 10**9  # a row that nobody used for this long may go to somebody else


class Rows:
    """Names to row numbers of one table, with bounds for each company and for all.

    Parameters
    ----------
    table
        Array of `stream_row` or `key_row`: both have `taken`, `generation` and `used_ns`.
    what, company_max
        For the error: what is counted, and how many of it a company may have.
    """

    def __init__(self, table: np.ndarray, what: str, company_max: int) -> None:
        self.table = table
        self.what = what
        self.company_max = company_max
        self.names: dict[tuple, int] = {}
        self.companies: dict[str, set[tuple]] = {}
        self.evicted = 0
        self._free = [int(row) for row in np.flatnonzero(table["taken"] == 0)[::-1]]

    def restore(self, row: int, company: str, name: tuple) -> None:
        """Enters a row that the table holds already; again changes nothing."""
        if name in self.names:
            return
        if row in self._free:
            self._free.remove(row)
        self.names[name] = row
        self.companies.setdefault(company, set()).add(name)

    def reserve(self, company: str, name: tuple, kept: Container[tuple] = ()) -> int:
        """The row for a new name, which says that it is free until the input is accepted.

        Parameters
        ----------
        kept
            Names that must not leave: the input that brings the new one uses them too.

        Raises
        ------
        Refused
            `overloaded`: the company, or the engine, has all it may have and none of it is idle.
        """
        own = self.companies.setdefault(company, set())
        if len(own) >= self.company_max:
            self._evict(own, kept, f"the company has {len(own)} {self.what}, at most {self.company_max} are kept")
        elif not self._free:
            self._evict(self.names.keys(), kept, f"the engine keeps {len(self.table)} {self.what} and all are in use")
        row = self._free.pop()
        self.names[name] = row
        own.add(name)
        return row

    def forget(self, name: tuple) -> None:
        row = self.names.pop(name)
        for own in self.companies.values():
            own.discard(name)
        self.release(row)

    def release(self, row: int) -> None:
        """Gives a row back that no name leads to."""
        self.table[row]["taken"] = 0
        self._free.append(row)

    def _evict(self, names: Iterable[tuple], kept: Container[tuple], refusal: str) -> None:
        used_ns = {name: int(self.table[self.names[name]]["used_ns"]) for name in names if name not in kept}
        oldest = min(used_ns, key=used_ns.__getitem__, default=None)
        if oldest is None or time.monotonic_ns() - used_ns[oldest] < IDLE_NS:
            raise Refused(Reason.OVERLOADED, f"{refusal}; send fewer, or wait until idle ones are let go")
        self.forget(oldest)
        self.evicted += 1


class Tables:
    """Streams by (company, stream) and keys by (row of the stream, its generation, symbol)."""

    def __init__(self, shared: Shared, bounds: Limits) -> None:
        self.shared = shared
        self.streams = Rows(shared.streams, "streams", bounds.streams)
        self.keys = Rows(shared.keys, "keys", bounds.keys)

    def open(self) -> None:
        """Reads back what an earlier process of this role left in the arena."""
        rows = self.shared.streams
        for row in np.flatnonzero(rows["taken"]):
            company, stream = rows[row]["company"].decode(), rows[row]["stream"].decode()
            self.streams.restore(int(row), company, (company, stream))
        keys = self.shared.keys
        for row in np.flatnonzero(keys["taken"]):
            owner = int(keys[row]["stream"])
            if rows[owner]["taken"] and rows[owner]["generation"] == keys[row]["stream_generation"]:
                name = (owner, int(keys[row]["stream_generation"]), keys[row]["symbol"].decode())
                self.keys.restore(int(row), rows[owner]["company"].decode(), name)
            else:
                self.keys.release(int(row))


def shard_of(company: str, stream: str) -> int:
    """The same for a stream's whole life, on every host."""
    digest = hashlib.blake2b(f"{company}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % limits.SHARDS
