"""What replay needs to begin at a segment: windows of live keys, plans and versions.

Owns nothing; reads the arena from beside. Runs in the watch process, which holds nobody up while it copies.

Why a copy taken while things run is right. A segment begins with every input whose answer is not settled
yet (the oldest of them is `first`), so what the copied windows lack is what those inputs write, and replay
writes it again. What the windows hold already of those inputs does no harm: an entry of a closed minute
never changes, an entry that a worker is just writing belongs to one of those inputs and is written again in
whole, and writing twice is writing once. That holds as long as no minute that the inputs look at was
overwritten: a window has 15 entries to spare, so no key may have gone further than 15 steps between the
first of its inputs in the segment and the end of the copy. `too_far` checks that, by the key table that
ingress writes ahead of the workers; the watch then copies again from a later input.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from engine import limits, records
from engine.shared import Shared
from engine.watch import tape
from fastpath import layout

HEAD = records.HEAD_BYTES


class Steps:
    """Where each key stood before the inputs that a segment begins with."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.generations = shared.keys["generation"].copy()
        self.steps = shared.keys["step"].astype(np.int64)

    def before(self, pending: Iterable[bytes]) -> None:
        """Takes in the records of the inputs that are not settled."""
        for record in pending:
            count = int(np.frombuffer(record, layout.input_record_dtype, 1)[0]["decisions"])
            for decision in np.frombuffer(record, layout.vector_decision_dtype, count, HEAD):
                row = int(decision["key"])
                if decision["reason"] == 0 and decision["generation"] == self.generations[row]:
                    self.steps[row] = min(self.steps[row], int(decision["step"]) - int(decision["skipped"]))

    def too_far(self) -> int:
        """How many keys went on, or were given to another, too far for what was copied until now."""
        keys = self.shared.keys
        gone_on = keys["step"].astype(np.int64) - self.steps > limits.STEPS_SPARE
        live = (keys["taken"] != 0) & (self.generations == keys["generation"])
        other = (self.generations != keys["generation"]) & (self.generations != 0)
        return int(np.count_nonzero((gone_on & live) | other))


def copy_windows(shared: Shared) -> list[tuple[int, int, bytes]]:
    """(row, generation, entries) of each live key, as quickly as memory is copied."""
    keys = shared.keys
    return [
        (int(row), int(keys[row]["generation"]), shared.windows[row].tobytes()) for row in np.flatnonzero(keys["taken"])
    ]


def tables(shared: Shared) -> Iterator[bytes]:
    """Frames of the tables, all their rows, since others name them."""
    yield tape.pack_table("versions", shared.versions)
    yield tape.pack_table("feature_names", shared.feature_names)
    yield tape.pack_table("plans", shared.plans)
