from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

no_key: int
codes: dict[str, int]

class Bounds:
    def __init__(
        self,
        *,
        price_max: float,
        correlation_max: float,
        crossed_max_bp: float,
        indicators: Sequence[tuple[float, float]],
        ahead_max_ns: int,
        correlations: int,
        history: int,
        extra: int,
        hole_steps_max: int,
    ) -> None: ...

class Batch:
    def read(self, payload: bytes) -> None: ...
    def __len__(self) -> int: ...
    @property
    def user_id(self) -> str: ...
    @property
    def company_id(self) -> str: ...
    @property
    def decisions(self) -> NDArray[Any]: ...
    @property
    def rejected(self) -> int: ...
    def has_good_symbols(self) -> bool: ...
    def repeats_itself(self) -> bool: ...
    def check(self, envelope_ns: int, symbols: frozenset[str], bounds: Bounds) -> list[str]: ...
    def place(
        self,
        rows: list[int],
        keys: NDArray[Any],
        states: NDArray[Any],
        streams: NDArray[Any],
        stream: int,
        missing: int,
        late: bool,
        bounds: Bounds,
    ) -> None: ...
