"""Stream tables for the tests of the arbiter, and what a state says in plain Python."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastpath.layout import stream_row_dtype, stream_state_dtype


def stream_table(streams: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """(states, rows) without any stream."""
    return np.zeros((streams, 2), stream_state_dtype), np.zeros(streams, stream_row_dtype)


def standing(states: NDArray[Any], rows: NDArray[Any], index: int = 0) -> dict[str, Any]:
    """The state that stands, without what lies in unused places."""
    state = states[index, rows["active"][index]]
    gaps = int(state["gap_count"])
    return {
        **{name: int(state[name]) for name in ("applied", "given_up", "newest_minute")},
        "gaps": list(zip(state["gap_minute"][:gaps].tolist(), state["gap_missing"][:gaps].tolist(), strict=True)),
        "current": _epoch(state["current"]),
        "previous": _epoch(state["previous"]),
    }


def _epoch(state: Any) -> tuple[int, int, list[tuple[int, int]]]:
    """(epoch, next, ranges)."""
    count = int(state["range_count"])
    ranges = zip(state["range_first"][:count].tolist(), state["range_last"][:count].tolist(), strict=True)
    return int(state["epoch"]), int(state["next"]), list(ranges)
