import numpy as np
from numpy.typing import NDArray

from fastpath.lstm import Network

class Lanes:
    network: Network
    blocks: int
    made_up: int
    waiting: int
    def __init__(self, network: Network, blocks: int) -> None: ...
    def reset(self, keys: int) -> None: ...
    def bind(
        self,
        rows: NDArray[np.float32],
        columns: NDArray[np.int64],
        closing: NDArray[np.float32],
        key: NDArray[np.int64],
        generation: NDArray[np.uint32],
        step: NDArray[np.int64],
        plain: NDArray[np.float64],
        chances: NDArray[np.float64],
    ) -> None: ...
    def run(self, slots: list[int]) -> None: ...
    def work(self, budget_ns: int) -> bool: ...

def block_bytes(network: Network) -> int: ...
