from typing import Any

from numpy.typing import NDArray

from fastpath.ring import ByteRing, Ring
from fastpath.vectors import Batch

def fill_slots(requests: Ring, inputs: ByteRing, position: int, batch: Batch) -> None: ...
def newest_of(decisions: NDArray[Any]) -> int: ...
def apply_keys(
    decisions: NDArray[Any], keys: NDArray[Any], stream: int, generation: int, received_ns: int
) -> list[int]: ...
