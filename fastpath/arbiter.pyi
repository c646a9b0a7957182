from enum import IntEnum
from typing import Any

from numpy.typing import NDArray

class Arrival(IntEnum):
    FIRST = 1
    NEXT = 2
    AFTER_GAP = 3
    NEW_EPOCH = 4
    LATE = 5
    LATE_PREVIOUS = 6
    DUPLICATE = 7
    STALE = 8

def decide(states: NDArray[Any], rows: NDArray[Any], index: int, epoch: int, sequence: int) -> tuple[int, int]: ...
def decide_heartbeat(
    states: NDArray[Any], rows: NDArray[Any], index: int, epoch: int, sequence: int
) -> tuple[int, int]: ...
def apply(
    states: NDArray[Any],
    rows: NDArray[Any],
    index: int,
    position: int,
    epoch: int,
    sequence: int,
    minute: int,
    heartbeat: bool,
) -> None: ...
def forget(states: NDArray[Any], rows: NDArray[Any], index: int) -> None: ...
def window_gaps(states: NDArray[Any], rows: NDArray[Any], index: int, oldest_minute: int) -> int: ...
def newest_minute(states: NDArray[Any], rows: NDArray[Any], index: int) -> int: ...
def use(rows: NDArray[Any], index: int, generation: int, received_ns: int) -> bool: ...
