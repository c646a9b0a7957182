from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastpath.packing import Nodes

TABLES_BYTES_MAX: int

class Trees:
    inputs: int
    classes: int
    count: int
    portable: bool
    without_table: int
    def __init__(
        self,
        trees: Sequence[Nodes],
        of_class: Sequence[int],
        base: Sequence[float],
        inputs: int,
        tables_bytes: int = TABLES_BYTES_MAX,
        portable: bool = False,
    ) -> None: ...
    def margins(self, row: NDArray[np.float32], out: NDArray[np.float64]) -> None: ...
    def explain(self, row: NDArray[np.float32], k: int, out: NDArray[np.float32]) -> None: ...
    def bind(
        self,
        columns: NDArray[np.float32],
        chosen: ArrayLike,
        slope: float,
        bias: NDArray[np.float64],
        plan: NDArray[np.uint8],
        chances: NDArray[np.float64],
        shap: NDArray[np.float32],
    ) -> None: ...
    def run(self, slots: list[int], explained: NDArray[np.uint8]) -> None: ...
    def sound(self, slots: list[int]) -> bool: ...
