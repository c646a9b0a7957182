from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fastpath.ring import ByteRing, Ring

policies: tuple[str, ...]
spin_before_block_ns: int

class Doorbell:
    fd: int
    def __init__(self, memory: memoryview | bytearray | NDArray[Any], fd: int) -> None: ...
    def ring(self) -> bool: ...
    def sleep(self) -> None: ...
    def wake(self) -> None: ...
    def wait(
        self,
        rings: Sequence[Ring | ByteRing],
        positions: Sequence[int],
        policy: str,
        spin_ns: int,
        timeout_ms: int = 10,
        or_rung: bool = False,
    ) -> bool | None: ...

def resolve_policy(setting: str, cores: int, processes_before_me: int) -> tuple[str, int]: ...
